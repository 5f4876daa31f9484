"""Which side of their kinks samples are on."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from .._precision import jit
from ..objectives import AbstractObjective


@jit
def kink_pattern(objective: AbstractObjective, params: PyTree) -> list[Bool[Array, "samples ..."]]:
    """The side of every kink that `params` are on, for a network that has any."""
    pattern = objective.kink_pattern(params)
    if not pattern:
        raise ValueError(
            "objective: the network shows no kinks (ReLU, max-pooling), so there are no sides to"
            " change. Kinks inside of loops are not seen."
        )
    return pattern


def total(truths: list[Bool[Array, "..."]]) -> Int[Array, ""]:
    """How many are true."""
    return jnp.sum(jnp.stack([jnp.sum(truth) for truth in truths]))
