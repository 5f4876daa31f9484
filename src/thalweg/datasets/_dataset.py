"""Inputs and targets, side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._checks import check_positive_integer


class Dataset(eqx.Module):
    """Samples with their targets.

    - `inputs`: shape `(samples, ...)`.
    - `targets`: integer labels `(samples,)`, or numbers `(samples, outputs)`.
    - `classes`: the number of classes of integer labels, else `None`.

    **Raises:** ValueError for targets of other shapes, or labels outside 0 ... classes - 1.
    """

    inputs: Float[Array, "samples ..."]
    targets: Array
    name: str = eqx.field(static=True)
    classes: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        samples, wanted = self.inputs.shape[:1], 1 if self.classes is not None else 2
        if self.targets.ndim != wanted or self.targets.shape[:1] != samples:
            shape = "(samples,)" if self.classes is not None else "(samples, outputs)"
            raise ValueError(
                f"targets: expected shape {shape} for inputs of shape {self.inputs.shape}, got"
                f" {self.targets.shape}."
            )
        if self.classes is None or isinstance(self.targets, Tracer):
            return
        if jnp.any((self.targets < 0) | (self.targets >= self.classes)):
            raise ValueError(
                f"targets: labels run from {self.targets.min()} to {self.targets.max()}, which are"
                f" not those of {self.classes} classes (0 to {self.classes - 1})."
            )

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.inputs.shape[0]

    @property
    def outputs(self) -> int:
        """Number of outputs that a network needs."""
        return self.classes if self.classes is not None else self.targets.shape[1]

    def one_hot(self) -> "Dataset":
        """The same samples with labels as one-hot rows; targets that are numbers stay."""
        if self.classes is None:
            return self
        targets = jax.nn.one_hot(self.targets, self.classes, dtype=self.inputs.dtype)
        return Dataset(self.inputs, targets, self.name, None)

    def standardised(self) -> "Dataset":
        """Every feature shifted and scaled to mean 0 and standard deviation 1.

        Features that do not vary (a corner that is always black) become 0.
        """
        # A constant feature is told by its range: rounding of the mean leaves it a tiny deviation,
        # and dividing by that would make a feature of what is none.
        varies = jnp.ptp(self.inputs, axis=0) > 0
        centred = self.inputs - jnp.mean(self.inputs, axis=0)
        spread = jnp.std(self.inputs, axis=0)
        inputs = jnp.where(varies, centred / jnp.where(varies, spread, 1), 0)
        return Dataset(inputs, self.targets, self.name, self.classes)

    def whitened(self) -> "Dataset":
        """Inputs, flattened, in coordinates in which their second moment `1/N sum x x^T` is 1.

        The principal directions, each scaled to mean square 1; those in which the data do not
        extend are dropped, so that inputs have shape `(samples, rank)`. Not centred: a linear
        network without biases sees the second moment.
        """
        flat = self.inputs.reshape(self.samples, -1)
        left, sizes, _ = jnp.linalg.svd(flat, full_matrices=False)
        eps = jnp.finfo(flat.dtype).eps
        extends = sizes > max(flat.shape) * eps * sizes[0]
        inputs = jnp.sqrt(self.samples) * left[:, extends]
        return Dataset(inputs, self.targets, self.name, self.classes)


def check_count(samples: int | None, available: int) -> int:
    """The number of samples to take.

    **Raises:** ValueError for a number that is not positive, or more than there are.
    """
    if samples is None:
        return available
    check_positive_integer(samples, "samples")
    if samples > available:
        raise ValueError(f"samples: {samples} asked for, but there are only {available}.")
    return int(samples)
