"""Bounds from above on the sharpness of a network with piecewise linear activations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import check_positive
from .._precision import jit
from ..objectives import AbstractObjective, Objective
from ._bound import (
    Passage,
    chained,
    checked,
    interaction,
    is_linear,
    linear_layers,
    product,
    unpenalised,
)
from ._rounding import rounding_unit


def upper_bound(
    objective: AbstractObjective, params: PyTree, *, radius: float = 0.0
) -> Float[Array, ""]:
    """A closed-form bound from above on the absolute value of every eigenvalue of the Hessian.

    The counterpart of `lower_bound`, with the same hypotheses, arguments and errors, at the point
    and in the ball of this radius around it. Beyond what `lower_bound` adds up, the Gauss-Newton
    part: at most the smoothness of the loss times the mean square of the Jacobian's norm
    (docs/curvature.md).
    """
    check_positive(radius, "radius", zero=True)
    plain, lowest, highest = unpenalised(objective)
    bound = upper_bound_at(checked(params, plain), plain, radius)
    decay = jnp.maximum(jnp.abs(lowest), jnp.abs(highest))
    return (bound + decay) * (1 + jnp.finfo(bound.dtype).eps)


@jit
def upper_bound_at(network: Any, objective: Objective, radius: Any) -> Float[Array, ""]:
    """`upper_bound` without its checks, for many points: can be traced."""
    matrix = interaction(network, objective, radius)
    bent = jnp.max(jnp.linalg.eigvalsh(matrix))
    part = _linear_part if is_linear(network) else _homogeneous_part
    squares = objective.loss.smoothness * part(network, objective, radius)  # pyright: ignore
    return (bent + squares) * (1 + rounding_unit(network, objective))


def _homogeneous_part(network, objective, radius):
    """The mean over samples of the squared norm of the Jacobian."""
    passage = Passage.through(network, radius, rounding_unit(network, objective))

    def of_sample(x):
        changes = passage.entering(x).changes
        return sum((c * row[-1]) ** 2 for c, row in zip(changes, passage.passed, strict=True))

    return objective.mean_of_sums(lambda x, y: jnp.sum(jax.vmap(of_sample)(x)))


def _linear_part(network, objective, radius):
    """For all samples at once: what leaves a layer's entry times what the inputs make of it."""
    weights, gains, as_input = linear_layers(network)

    def moments(x, y):
        x = as_input(x)
        return x.T @ x

    unit = rounding_unit(network, objective)
    second_moment = objective.mean_of_sums(moments)
    values, vectors = jnp.linalg.eigh(second_moment)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))
    # What rounding may have taken from squares of norms.
    lost = unit * jnp.trace(second_moment)
    sizes = [jnp.linalg.norm(w) for w in weights]
    norms = [jnp.linalg.norm(w, 2) + unit * size for w, size in zip(weights, sizes, strict=True)]
    wider = [norm + gain * radius for norm, gain in zip(norms, gains, strict=True)]
    size = jnp.sqrt(jnp.linalg.norm(root, 2) ** 2 + lost)
    total = jnp.zeros(())
    for i, gain in enumerate(gains):
        above, below = chained(weights[i + 1 :]), chained(weights[:i])
        after = jnp.linalg.norm(above, 2) if above is not None else jnp.ones(())
        after += unit * (product(sizes[i + 1 :]) + product(wider[i + 1 :]))
        before = jnp.linalg.norm(root if below is None else below @ root, 2)
        before = jnp.sqrt(before**2 + lost * product(sizes[:i]) ** 2)
        after += product(wider[i + 1 :]) - product(norms[i + 1 :])
        before += (product(wider[:i]) - product(norms[:i]) + unit * product(wider[:i])) * size
        total += (gain * after * before) ** 2
    return total
