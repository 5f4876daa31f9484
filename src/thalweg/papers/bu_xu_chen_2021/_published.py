"""The published numbers: printed in the official notebook, but for heavy ball by epoch.

Bu, Xu and Chen (2021) trained a network of two layers on the first 600 of MNIST's training images,
for the mean squared error of the digit as a number, in float32 and full batch. Losses are as there,
without a half. By width, Nesterov's method was run from ten starts, all else from one.
"""

SAMPLES, WIDTH, EPOCHS, STEP_SIZE = 600, 3000, 5000, 1e-4
HEAVY_BALL_WIDTHS = tuple(range(2000, 8001, 500))
NESTEROV_WIDTHS = tuple(range(1000, 8001, 1000))
WIDTHS_EPOCHS, WIDTHS_STEP_SIZE = 200, 5e-5
# Of the labels of the 600 images, by which they are known.
LABELS_DIGEST = "370fbdc9816de9d59d8dbd7244b3daf8bb41d09ea6fe66c0047f99422f2eb8d2"

AT = (100, 200, 500, 1000, 2000, 3000, 4000, 5000)
# By epoch, at `AT`. Final losses of heavy ball are read off a figure.
BY_EPOCH = {
    "gradient_descent": (2.223, 1.686, 0.9794, 0.5552, 0.2607, 0.1488, 0.09329, 0.06203),
    "heavy_ball_0.2": (None,) * 7 + (0.045,),
    "heavy_ball_0.5": (None,) * 7 + (0.023,),
    "heavy_ball_0.8": (None,) * 7 + (0.0047,),
    "nesterov_2": (0.7342, 0.1356, 4.155e-3, 3.015e-4, 2.838e-5, 8.359e-6, 3.013e-6, 1.517e-6),
    "nesterov_3": (0.6804, 0.1146, 1.536e-3, 4.601e-5, 2.560e-6, 4.972e-7, 1.287e-7, 5.475e-8),
    "nesterov_6": (0.7564, 0.1520, 1.623e-3, 6.338e-6, 3.902e-8, 2.666e-9, 5.439e-10, 9.339e-11),
    "nesterov_8": (0.8859, 0.2119, 3.242e-3, 1.971e-5, 1.077e-8, 2.146e-10, 3.072e-11, 2.888e-12),
    "higher_momentum_0.2_0.2": (1.837, 1.338, 0.7475, 0.4110, 0.1828, 0.0994, 0.05967, 0.03811),
    "higher_momentum_0.2_0.5": (1.752, 1.206, 0.6194, 0.3102, 0.1210, 0.05929, 0.03253, 0.01918),
}

# By width, at epoch 200.
_HEAVY_BALL = {
    "gradient_descent": (
        *(2.195, 2.105, 2.040, 1.985, 1.900, 1.824, 1.806),
        *(1.747, 1.749, 1.750, 1.836, 1.943, 2.139),
    ),
    "heavy_ball_0.6": (
        *(1.601, 1.485, 1.439, 1.432, 1.347, 1.260, 1.294),
        *(1.284, 1.370, 1.443, 1.434, 1.377, 1.938),
    ),
    "heavy_ball_0.9": (
        *(0.9002, 0.8479, 0.8071, 0.7498, 0.7840, 0.7630, 0.9057),
        *(0.9075, 0.9562, 0.9567, 1.072, 1.095, 1.494),
    ),
}
# Mean, smallest and largest of ten starts.
_NESTEROV = {
    "nesterov_2": (
        (0.1632, 0.08464, 0.08553, 0.1340, 0.1979, 0.3479, 0.4768, 0.6071),
        (0.1447, 0.08064, 0.07860, 0.1257, 0.1652, 0.3074, 0.4428, 0.4966),
        (0.1717, 0.09076, 0.09326, 0.1510, 0.2496, 0.4079, 0.5278, 0.7330),
    ),
    "nesterov_4": (
        (0.2982, 0.1803, 0.1614, 0.1994, 0.1898, 0.2816, 0.3864, 0.5018),
        (0.2752, 0.1710, 0.1460, 0.1885, 0.1710, 0.2582, 0.3642, 0.4339),
        (0.3103, 0.1944, 0.1755, 0.2237, 0.2045, 0.3427, 0.4121, 0.5609),
    ),
    "nesterov_10": (
        (0.6749, 0.4707, 0.4160, 0.6073, 0.3609, 0.3918, 0.5049, 0.6584),
        (0.6377, 0.4555, 0.3832, 0.4680, 0.3253, 0.3610, 0.4822, 0.6132),
        (0.6969, 0.4907, 0.4472, 0.8878, 0.3791, 0.4264, 0.5363, 0.7103),
    ),
}


def _by_width() -> dict[str, dict[int, tuple[float, float, float]]]:
    found = {}
    for key, losses in _HEAVY_BALL.items():
        found[key] = {m: (v, v, v) for m, v in zip(HEAVY_BALL_WIDTHS, losses, strict=True)}
    for key, rows in _NESTEROV.items():
        found[key] = dict(zip(NESTEROV_WIDTHS, zip(*rows, strict=True), strict=True))
    return found


# By method and width: the loss, and between which losses starts lie.
BY_WIDTH = _by_width()
