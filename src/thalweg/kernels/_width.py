"""The width at which theory promises that a network follows its kernel."""

import math
from typing import Any, NamedTuple

import numpy as np

from .._checks import check_positive
from ._fully_connected import two_layer
from ._infinite_network import checked_samples
from ._modes import modes


class SufficientWidth(NamedTuple):
    """A width of the theory's two-layer network that suffices, and what it comes from.

    - `width`: how many hidden units.
    - `eigenvalue`: the smallest of the infinitely wide network's tangent kernel.
    - `radius`: how far no row of weights may go; with this width none does.
    """

    width: int
    eigenvalue: float
    radius: float


def sufficient_width(inputs: Any, targets: Any, *, failure: float = 0.1) -> SufficientWidth:
    """A width from which on gradient flow provably goes to a global minimum like its kernel.

    For `tw.networks.two_layer` and the squared error: with probability `1 - failure` over the
    initialisation the kernel's smallest eigenvalue never falls below half of the limit's, so that
    the prediction error falls at least like `exp(-eigenvalue t / (2 samples))`. The argument is in
    docs/kernels.md; it is of the order `samples^6 / (eigenvalue^4 failure^3)`, and far more than it
    takes: compare `tw.predicted_run` with a run.

    **Arguments:**

    - `inputs`: unit vectors, `(samples, features)`, no two of them alike.
    - `targets`: shape `(samples,)`.
    - `failure`: the probability that is left for the promise to fail.

    **Raises:** ValueError for inputs that are not unit vectors, of which two agree, or for
    targets of another shape.

    ??? cite "Reference"

        Du, Zhai, Póczos and Singh, "Gradient descent provably optimizes over-parameterized neural
        networks", International Conference on Learning Representations (2019), theorem 3.2.
    """
    check_positive(failure, "failure")
    if failure >= 1:
        raise ValueError(f"failure: must be below 1, got {failure}.")
    samples = np.asarray(checked_samples(inputs, "inputs"), float)
    samples = samples.reshape(len(samples), -1)
    values = np.asarray(targets, float)
    n = len(samples)
    if values.shape != (n,):
        raise ValueError(f"targets: expected shape ({n},), got {values.shape}.")
    lengths = np.linalg.norm(samples, axis=1)
    if np.abs(lengths - 1).max() > 1e-6:
        worst = lengths[np.argmax(np.abs(lengths - 1))]
        raise ValueError(f"inputs: expected unit vectors, but one has length {worst:.6g}.")
    cosine = samples @ samples.T - 2 * np.eye(n)
    closest = np.unravel_index(np.argmax(cosine), cosine.shape)
    found = modes(two_layer(samples.shape[1])(samples).tangent)
    if not math.isfinite(found.condition):
        i, j = sorted(int(k) for k in closest)
        raise ValueError(
            f"inputs: samples {i} and {j} agree (cosine {cosine[closest]:.9g}), so that the"
            " kernel is singular and no width suffices."
        )
    least = float(found.eigenvalues[-1])
    # A third of the failure for each of three events.
    share = failure / 3
    concentrated = 32 * n**2 * math.log(2 * n**2 / share) / least**2
    radius = math.sqrt(2 * math.pi) * share * least / (16 * n**2)
    start = (np.sum(values**2) + n / 2) / share
    still = 4 * n * start / (least * radius) ** 2
    return SufficientWidth(math.ceil(max(concentrated, still)), least, radius)
