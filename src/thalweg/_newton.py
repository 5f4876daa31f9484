"""Newton's method from a point of a flow to the critical point near it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._precision import jit
from ._trees import tree_axpy, tree_dtype, tree_norm, tree_size, tree_sub
from .objectives import AbstractObjective

# Up to this many parameters Newton's equations are solved with the whole Hessian.
DENSE = 200
_STEPS = 30
_SHIFT = 0.1


class Newton(NamedTuple):
    """Where Newton's method came to.

    `rest` is how far its further steps would lead if they shrank as the last two did; infinite
    where the last step that was tried did not halve the gradient.
    """

    point: PyTree
    norm: float
    steps: int
    cost: int
    rest: float


def newton(
    objective: AbstractObjective,
    params: PyTree,
    norm: float,
    rate: float,
    enough: float,
    *,
    taken: int = 0,
    short: float = 0.0,
) -> Newton:
    """Newton's method, as long as it halves the gradient and that is more than `enough`.

    It also ends when less than `short` is left to go.

    Each step is one of the implicit Euler method on the flow itself, ten times as long as the
    one before and the first as long as the whole way so far. Directions in which the flow has
    come to rest see no difference to Newton's method; along a flat valley, where curvature is
    noise, it moves no farther than the flow does. `norm` is that of the gradient at `params`,
    `taken` the number of steps that led there.
    """
    point, now, cost, steps = params, norm, 0, 0
    length, shrinks, rest = 0.0, 1.0, float("inf")
    solve = _dense_step if tree_size(params) <= DENSE else _krylov_step
    while steps < _STEPS and rest > short and (now > enough or steps + taken == 0 < now):
        # An array, lest every new number be compiled anew.
        shift = jnp.asarray(_SHIFT * rate / 10 ** (steps + taken), tree_dtype(params))
        trial, spent = solve(objective, point, shift)
        new = float(gradient_norm_at(objective, trial))
        cost += 1 + int(spent)
        if not new < 0.5 * now:
            rest = float("inf")
            break
        before, length = length, float(tree_norm(tree_sub(trial, point)))
        shrinks = length / before if before else 1.0
        rest = length * shrinks / (1 - shrinks) if shrinks < 1 else float("inf")
        point, now, steps = trial, new, steps + 1
    return Newton(point, now, steps, cost, rest)


@jit
def gradient_norm_at(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of the gradient. Costs 1 gradient."""
    return tree_norm(objective.gradient(params))


@jit
def eigenbasis(
    objective: AbstractObjective, params: PyTree
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """All eigenvalues of the Hessian and, in columns, its eigenvectors. Costs 2 n gradients."""
    return _eigenbasis(objective, params)


def _eigenbasis(objective, params):
    flat, unravel = ravel_pytree(params)

    def product(v):
        return ravel_pytree(objective.hvp(params, unravel(v)))[0]

    hessian = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype))
    return jnp.linalg.eigh((hessian + hessian.T) / 2)


@jit
def _dense_step(objective, params, shift) -> tuple[PyTree, Any]:
    flat, unravel = ravel_pytree(params)
    values, vectors = _eigenbasis(objective, params)
    gradient = ravel_pytree(objective.gradient(params))[0]
    # Where the landscape curves down, implicit Euler is no guide: such steps would go uphill.
    along = vectors.T @ gradient / (jnp.abs(values) + shift)
    return unravel(flat - vectors @ along), 1 + 2 * flat.size


@jit
def _krylov_step(objective, params, shift) -> tuple[PyTree, Any]:
    gradient = objective.gradient(params)
    operator = lineax.FunctionLinearOperator(
        lambda v: tree_axpy(shift, v, objective.hvp(params, v)),
        jax.eval_shape(lambda: gradient),
        lineax.positive_semidefinite_tag,
    )
    solver = lineax.CG(rtol=1e-3, atol=0.0, norm=tree_norm, max_steps=500)
    solution = lineax.linear_solve(operator, gradient, solver, throw=False)
    step = solution.value
    return tree_sub(params, step), 1 + 2 * solution.stats["num_steps"]
