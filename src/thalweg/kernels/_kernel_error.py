"""What a kernel that is known from a series only leaves in doubt of predictions."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._infinite_network import Kernels
from ._modes import Modes
from ._prediction import Clock

# A series may be cut off by as much as summation rounds, in units of the resolution.
_ROUNDING = 16
# The share of a curvature over which its response is differentiated.
_SPACING = 1e-4


class UncertainKernel(NamedTuple):
    """How far a tangent kernel may be from the true one, in the Frobenius norm."""

    distance: float

    @staticmethod
    def of(kernels: Kernels, activations: int) -> "UncertainKernel | None":
        """None for a kernel that is exact up to rounding.

        Each activation enters twice, by its values and by its slopes, and loses at most a share
        `error` of a variance either way. An entry is then wrong by at most that share of the
        geometric mean of two diagonal ones, to first order.
        """
        if kernels.error <= _ROUNDING * float(jnp.finfo(kernels.tangent.dtype).eps):
            return None
        return UncertainKernel(2 * activations * kernels.error * float(jnp.trace(kernels.tangent)))

    def of_means(
        self, clock: Clock, found: Modes, targets: Float[Array, "samples ..."]
    ) -> Float[Array, "saves"]:
        """How far means of outputs may be off, with the squared error, to first order.

        A function of the kernel changes by at most its steepest slope on the spectrum, times the
        distance; what it acts on are the targets, from which means start.
        """
        curvatures = np.unique(np.asarray(found.curvatures, float))
        spacing = _SPACING * np.maximum(curvatures, curvatures[-1] * _SPACING)
        # Neighbours, and pairs around every eigenvalue: all other slopes lie between these.
        grid = np.sort(np.concatenate([curvatures, curvatures + spacing]))
        faded = clock.responses(grid).faded
        steepest = np.max(np.abs(np.diff(faded, axis=1) / np.diff(grid)), axis=1, initial=0.0)
        # It changes by no more than twice what it is.
        most = 2 * np.max(np.abs(faded), axis=1)
        size = float(jnp.linalg.norm(jnp.ravel(targets)))
        share = np.minimum(steepest * self.distance / found.samples, most)
        return jnp.asarray(share * size, found.vectors.dtype)

    def moved(self, found: Modes) -> Modes:
        """The modes of a kernel that is as far away, for a run that shows what that changes."""
        return eqx.tree_at(lambda m: m.eigenvalues, found, found.eigenvalues + self.distance)
