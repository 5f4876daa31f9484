"""Inputs and targets, side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dataset(eqx.Module):
    """Samples with their targets.

    - `inputs`: shape `(samples, ...)`.
    - `targets`: integer labels `(samples,)`, or numbers `(samples, outputs)`.
    - `classes`: the number of classes of integer labels, else `None`.
    """

    inputs: Float[Array, "samples ..."]
    targets: Array
    name: str = eqx.field(static=True)
    classes: int | None = eqx.field(static=True, default=None)

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
        spread = jnp.std(self.inputs, axis=0)
        inputs = (self.inputs - jnp.mean(self.inputs, axis=0)) / jnp.where(spread > 0, spread, 1)
        return Dataset(inputs, self.targets, self.name, self.classes)


def check_count(samples: int | None, available: int) -> int:
    """The number of samples to take.

    **Raises:** ValueError for a number that is not positive, or more than there are.
    """
    if samples is None:
        return available
    if int(samples) != samples or samples < 1:
        raise ValueError(f"samples: expected a positive integer, got {samples}.")
    if samples > available:
        raise ValueError(f"samples: {samples} asked for, but there are only {available}.")
    return int(samples)
