"""The published numbers: read from the vector figures of the official code, to about 1e-4.

Elkabetz and Cohen (2021) ran one seed in float32 and drew, for every network, the training loss and
the Euclidean distance over all weights between gradient descent with step 1e-3 and with steps r
times shorter. For the convolutional networks only the ratio of that distance to the distance
travelled is known here: 0.2 to 1.9 %.
"""

from dataclasses import dataclass

STEP_SIZE, STEPS, SAMPLES = 1e-3, 10_000, 1000
ITERATIONS = (100, 1000, 5000, 10_000)


@dataclass(frozen=True)
class Published:
    """At `ITERATIONS`: the loss, the distance from the start, and that to smaller steps."""

    loss: tuple[float, ...]
    travelled: tuple[float, ...]
    distance: dict[int, tuple[float, ...]]


PUBLISHED = {
    "linear": Published(
        loss=(1.637, 0.5160, 0.1841, 0.0835),
        travelled=(0.404, 1.203, 2.065, 2.615),
        distance={
            2: (0.0005, 0.0004, 0.0005, 0.0007),
            5: (0.0008, 0.0006, 0.0012, 0.0021),
            10: (0.0009, 0.0007, 0.0029, 0.0057),
            20: (0.0009, 0.0011, 0.0072, 0.0156),
        },
    ),
    "relu": Published(
        loss=(2.255, 0.9834, 0.2507, 0.1045),
        travelled=(0.198, 1.129, 2.370, 2.982),
        distance={
            2: (0.0003, 0.0019, 0.0185, 0.0423),
            5: (0.0004, 0.0020, 0.0182, 0.0422),
            10: (0.0005, 0.0020, 0.0182, 0.0424),
            20: (0.0005, 0.0021, 0.0185, 0.0430),
        },
    ),
}
