"""A kernel's eigenvalues and the directions in the space of predictions that belong to them."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Modes(eqx.Module):
    """The spectral decomposition of a tangent kernel on a set of samples.

    - `eigenvalues`: in falling order; shape `(samples,)` for a kernel that all outputs share,
        `(outputs, samples)` for one kernel each, `(samples * outputs,)` for all pairs of outputs.
    - `rounding`: what eigenvalues may be off by; those closer to zero are nothing but rounding.
    """

    eigenvalues: Float[Array, "*kernels modes"]
    vectors: Float[Array, "kernels size modes"]
    rounding: float = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)

    def amplitudes(self, values: Float[Array, "samples *outputs"]) -> Array:
        """What the modes have of values in the space of predictions: `(kernels, modes, copies)`."""
        return jnp.einsum("ksm,ksc->kmc", self.vectors, self._rows(values))

    def values(self, amplitudes: Array, shape: tuple[int, ...]) -> Array:
        """The other way round, in the shape of predictions."""
        rows = jnp.einsum("ksm,kmc->ksc", self.vectors, amplitudes)
        return self._predictions(rows, shape)

    def onto(self, cross: Float[Array, "..."], amplitudes: Array, shape: tuple[int, ...]) -> Array:
        """A kernel between other samples and these, times values given by their amplitudes."""
        return self._predictions(self.crossed(cross) @ amplitudes, shape)

    def crossed(self, cross: Float[Array, "..."]) -> Array:
        """A kernel between other samples and these, with the modes for columns."""
        if cross.ndim != self.ndim:
            raise ValueError(
                f"cross: {cross.ndim} axes, but the kernel on the training samples has {self.ndim}."
            )
        return _stacked(cross) @ self.vectors

    @property
    def stacked(self) -> Float[Array, "kernels modes"]:
        """Eigenvalues, one row for each kernel."""
        return self.eigenvalues.reshape(self.vectors.shape[0], -1)

    @property
    def positive(self) -> Array:
        """Eigenvalues with those below rounding set to zero."""
        return jnp.where(self.stacked > self.rounding, self.stacked, 0.0)

    @property
    def curvatures(self) -> Array:
        """The squared error's curvatures along the modes: eigenvalues over the number of samples.

        Those below rounding are zero. This is the spectrum that rates go by.
        """
        return self.positive / self.samples

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue; infinite where the smallest is rounding."""
        smallest = float(jnp.min(self.eigenvalues))
        largest = float(jnp.max(self.eigenvalues))
        return largest / smallest if smallest > self.rounding else math.inf

    def alignment(self, targets: Float[Array, "samples *outputs"]) -> float:
        """`y^T K y / (|y|^2 |K|)`: the cosine between the kernel and that of the targets.

        1 when the targets are the only mode. Of a kernel that all outputs share, with `Y Y^T`.

        ??? cite "Reference"

            Cristianini, Shawe-Taylor, Elisseeff and Kandola, "On kernel-target alignment", Advances
            in Neural Information Processing Systems 14 (2001).
        """
        parts = self.amplitudes(jnp.asarray(targets, self.vectors.dtype))
        size = float(jnp.sum(parts**2))
        if size == 0:
            raise ValueError("targets: are all zero, and have no direction.")
        if not float(jnp.max(jnp.abs(self.stacked))) > 0:
            raise ValueError("kernel: is zero, and has no direction.")
        along = float(jnp.sum(parts**2 * self.stacked[..., None]))
        if parts.shape[-1] > 1:
            # The kernel of the targets is the sum of those of all outputs.
            size = float(jnp.linalg.norm(parts[0].T @ parts[0]))
        return along / (size * float(jnp.linalg.norm(self.stacked)))

    def _rows(self, values):
        """As `(kernels, size, copies)`: how kernels act on them."""
        flat = values.reshape(values.shape[0], -1)
        if self.ndim == 4:
            return flat.reshape(1, -1, 1)
        return flat.T[..., None] if self.ndim == 3 else flat[None]

    def _predictions(self, rows, shape):
        if self.ndim == 3:
            rows = jnp.swapaxes(rows[..., 0], 0, 1)
        return rows.reshape(shape)


def modes(kernel: Any) -> Modes:
    """Diagonalise a kernel on a set of samples.

    **Arguments:**

    - `kernel`: shape `(samples, samples)` for all outputs alike, `(outputs, samples, samples)` for
        one kernel each, or `(samples, outputs, samples, outputs)`.

    **Raises:** TypeError for a kernel that is not a matrix yet; ValueError for one that is not
    square, not symmetric, not finite, or has an eigenvalue below zero by more than rounding.
    """
    if isinstance(kernel, eqx.Module | tuple):
        raise TypeError(
            f"kernel: expected an array, got {type(kernel).__name__}; pass its `tangent` (infinite"
            " width) or its `matrix(...)` (a real network)."
        )
    given = jnp.asarray(kernel)
    if given.ndim not in (2, 3, 4):
        raise ValueError(f"kernel: expected 2, 3 or 4 axes, got shape {given.shape}.")
    stacked = _stacked(given)
    if stacked.shape[1] != stacked.shape[2] or stacked.size == 0:
        raise ValueError(f"kernel: shape {given.shape} is not that of a square matrix.")
    if not np.isfinite(np.asarray(stacked)).all():
        raise ValueError("kernel: contains NaN or infinity.")
    scale = float(jnp.max(jnp.abs(stacked)))
    skew = float(jnp.max(jnp.abs(stacked - jnp.swapaxes(stacked, 1, 2))))
    if skew > 1e3 * float(jnp.finfo(stacked.dtype).eps) * scale:
        raise ValueError(f"kernel: is not symmetric; entries differ by {skew:.3g}.")
    values, vectors = jnp.linalg.eigh(stacked)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    size = stacked.shape[1]
    rounding = 4 * math.sqrt(size) * float(jnp.finfo(stacked.dtype).eps) * float(values.max())
    lowest = float(values.min())
    # Kernels with a kink lose half their digits where inputs nearly agree.
    worst = max(rounding, math.sqrt(float(jnp.finfo(stacked.dtype).eps)) * float(values.max()))
    if lowest < -worst:
        raise ValueError(
            f"kernel: has the eigenvalue {lowest:.3g}, far below zero against the largest,"
            f" {float(values.max()):.3g}; no tangent kernel has."
        )
    rounding = max(rounding, -lowest)
    shape = values.shape if given.ndim == 3 else values.shape[1:]
    samples = given.shape[0] if given.ndim == 4 else size
    return Modes(values.reshape(shape), vectors, rounding, given.ndim, samples)


def _stacked(kernel: Array) -> Array:
    """As `(kernels, rows, columns)`."""
    if kernel.ndim == 4:
        rows = kernel.shape[0] * kernel.shape[1]
        return kernel.reshape(1, rows, -1)
    return kernel if kernel.ndim == 3 else kernel[None]
