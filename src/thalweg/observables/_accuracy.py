"""How many samples are classified as they are labelled."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..objectives import AbstractObjective, AbstractSupervised, check_objective


def accuracy(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Fraction of samples whose largest output is the labelled (or one-hot) class."""
    known = check_objective(objective, AbstractSupervised, what="accuracy")
    guess = jnp.argmax(known.predictions(params), axis=-1)
    targets = known.targets
    labels = targets if jnp.issubdtype(targets.dtype, jnp.integer) else jnp.argmax(targets, axis=-1)
    return jnp.mean(guess == labels)
