"""The nonlinear equation of a step, by as few linear systems as it takes: mostly a single one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_norm, tree_sub
from ._between import secant_curvature
from ._deflation import Deflation
from ._shifted_solve import shifted_solve

# What a linearisation may leave, as a part of the tolerance; then there is another one.
NONLINEAR = 0.3
_LINEARISATIONS = 4


class Stage(NamedTuple):
    """The correction `u` of a guess, and what was found on the way.

    `field` and `residual`: the field there, and what it leaves of the equation, to first order.
    `wrong`: what the linearisation left, over the tolerance, as far as it was looked at; `vague`:
    the norm of what is not known of the residual. `definite`: whether all matrices were positive.
    `radius`: the largest curvature that products met, `seen`: the largest one between guesses.
    `systems` were solved, and `spent` is their price.
    """

    u: PyTree[Array]
    field: PyTree[Array]
    residual: PyTree[Array]
    wrong: Float[Array, ""]
    vague: Float[Array, ""]
    definite: Bool[Array, ""]
    radius: Float[Array, ""]
    seen: Float[Array, ""]
    deflation: Deflation | None
    systems: Int[Array, ""]
    spent: Int[Array, ""]


def solve_stage(
    field: Callable[[PyTree[Array]], PyTree[Array]],
    left_over: Callable[[PyTree[Array]], tuple[PyTree[Array], PyTree[Array]]],
    guess: PyTree[Array],
    first: tuple[PyTree[Array], PyTree[Array]],
    shift: Float[Array, ""],
    deflation: Deflation | None,
    *,
    tolerance: Float[Array, ""],
    enough: Float[Array, ""],
    hopeless: Float[Array, ""],
    radius: Float[Array, ""],
    size: Float[Array, ""],
    exact: Bool[Array, ""],
    check: Bool[Array, ""],
) -> Stage:
    """Solve `shift u = field(guess + u) + ...` for the correction of a guess.

    `left_over(u)` gives the field at the corrected guess and what it leaves of the equation, and
    `first` is what it gives for 0. With `check`, what a linearisation leaves is computed, at the
    price of a gradient, and if it is too much there is another one. The rest is as for
    `shifted_solve`.
    """
    zero, none = jnp.zeros_like(shift), jnp.asarray(0)

    def unfinished(stage):
        again = check & (stage.wrong > NONLINEAR) & (stage.systems < _LINEARISATIONS)
        return (stage.systems == 0) | (again & stage.definite)

    def linearised(stage):
        solved = shifted_solve(
            field,
            jax.tree.map(jnp.add, guess, stage.u),
            stage.field,
            shift,
            stage.residual,
            enough=enough,
            hopeless=hopeless,
            radius=jnp.maximum(radius, jnp.maximum(stage.radius, stage.seen)),
            size=size,
            exact=exact,
            deflation=stage.deflation,
        )
        u = jax.tree.map(jnp.add, stage.u, solved.x)

        def looked():
            there, residual = left_over(u)
            unforeseen = tree_norm(tree_sub(residual, solved.residual)) - solved.missed
            wrong = jnp.maximum(unforeseen, 0) / (shift * tolerance)
            # Without products, this is where a curvature that rose is seen.
            curvature = secant_curvature(stage.field, there, solved.x, radius, size)
            return there, residual, wrong, curvature, zero

        # To first order, the field at the end is that of the equation and what is left of it.
        there, residual, wrong, curvature, vague = jax.lax.cond(
            check, looked, lambda: (stage.field, solved.residual, zero, zero, solved.missed)
        )
        return Stage(
            u=u,
            field=there,
            residual=residual,
            wrong=wrong,
            vague=vague,
            definite=solved.definite & stage.definite,
            radius=jnp.maximum(stage.radius, solved.radius),
            seen=jnp.maximum(stage.seen, curvature),
            deflation=solved.deflation,
            systems=stage.systems + 1,
            spent=stage.spent + solved.evaluations + jnp.where(check, 1, 0),
        )

    still = jax.tree.map(jnp.zeros_like, guess)
    begin = Stage(still, *first, zero, zero, jnp.asarray(True), zero, zero, deflation, none, none)
    return jax.lax.while_loop(unfinished, linearised, begin)
