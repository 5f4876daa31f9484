"""Norms of the gradient and of the parameters."""

from jaxtyping import Array, Float, PyTree

from .._trees import tree_norm
from ..objectives import AbstractObjective


def gradient_norm(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of the gradient over all parameters. Costs 1 gradient."""
    return tree_norm(objective.gradient(params))


def parameter_norm(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all parameters."""
    return tree_norm(params)
