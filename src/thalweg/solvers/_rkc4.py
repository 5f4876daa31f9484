"""A fourth-order stabilised method: Runge-Kutta-Chebyshev steps, corrected once.

A step first makes five short steps of the second-order method. The polynomial p through their ends
is close to the solution, and what is missing obeys an equation of its own,

    d' = f(t, p + d) - p',    d = 0 at the start,

whose solution is small and as smooth as the flow itself: two longer steps of the same second-order
method give it to a percent or so. All that makes the second-order method stable far out on the
negative axis carries over, since every stage is a stage of the Chebyshev recurrence. The price is
3.7 times that of one step of RKC2.

A composition such as ROCK4 makes a step of order four for half that price. But its last four stages
are those of a classical method far beyond its stability, held together by what precedes them:
linear problems do not notice, while the nonlinear terms of a network excite the stiff directions at
every step, and twice to three times as many gradients are needed in the end.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from diffrax import AbstractLocalInterpolation
from jaxtyping import Array, Float, Int, PyTree

from .._trees import tree_dtype, tree_scale, tree_sub
from ._chebyshev import chebyshev_step, stages_for
from ._stabilised import Advance, StabilisedSolver

# Five parts make the polynomial good enough; three corrections would gain less than they cost.
_PREDICTIONS, _CORRECTIONS = 5, 2


class NodeInterpolation(AbstractLocalInterpolation):
    """The polynomial through the corrected ends of the short steps."""

    t0: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    t1: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    nodes: PyTree[Float[Array, "nodes ..."]]

    def evaluate(self, t0, t1=None, left=True):
        del left
        if t1 is not None:
            return tree_sub(self.evaluate(t1), self.evaluate(t0))
        length = jnp.where(self.t1 == self.t0, 1, self.t1 - self.t0)
        place = jnp.asarray((t0 - self.t0) / length)
        return combination(self.nodes, weights(place, _PREDICTIONS))


class RKC4(StabilisedSolver):
    """Runge-Kutta-Chebyshev method of order four, by deferred correction of RKC2.

    **Arguments:** `safety` and `max_stages` (of one short step) as for `RKC2`.

    ??? cite "Reference"

        Deferred correction on equal steps, where each sweep raises the order by that of the method
        that makes it: Christlieb, Ong and Qiu, "Integral deferred correction methods constructed
        with high order Runge-Kutta integrators", Mathematics of Computation 79 (2010) 761-783. The
        second-order method: see `RKC2`.
    """

    safety: float = 1.1
    max_stages: int | Int[Array, ""] = 500

    interpolation_cls: ClassVar[Callable[..., NodeInterpolation]] = NodeInterpolation

    def order(self, terms):
        return 4

    def error_order(self, terms):
        return 5

    def advance(self, terms, t0, t1, y0, args, f0, reach):
        length, control = t1 - t0, terms.contr(t0, t1)
        real = jnp.promote_types(tree_dtype(y0), jnp.result_type(t0))
        wanted = stages_for(reach / _PREDICTIONS), stages_for(reach / _CORRECTIONS)
        few, many = (jnp.minimum(stages, self.max_stages) for stages in wanted)

        # Places are fractions of the step; slopes are per step.
        def slope(place, y):
            return terms.vf_prod(t0 + place * length, y, args, control)

        def predict(carry, start):
            y, k = carry
            y = _part(slope, start, y, k, _PREDICTIONS, few, real)
            return (y, _unless_last(slope, start + 1 / _PREDICTIONS, y)), y

        k0 = terms.prod(f0, control)
        starts = _fractions(_PREDICTIONS, real)[:-1]
        _, ends = jax.lax.scan(predict, (y0, k0), starts)
        nodes = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), y0, ends)

        def polynomial(place):
            values, slopes = jax.jvp(
                lambda x: weights(x, _PREDICTIONS), (place,), (jnp.ones((), real),)
            )
            return combination(nodes, values), combination(nodes, slopes)

        def missing(place, d):
            p, dp = polynomial(place)
            return tree_sub(slope(place, jax.tree.map(jnp.add, p, d)), dp)

        def correct(carry, start):
            d, g, error = carry
            new = _part(missing, start, d, g, _CORRECTIONS, many, real)
            g_new = _unless_last(missing, start + 1 / _CORRECTIONS, new)
            # The second-order method's own estimate of its error, here in the correction.
            error = jax.tree.map(
                lambda e, a, b, ga, gb: e + 0.8 * (a - b) + 0.4 / _CORRECTIONS * (ga + gb),
                error, d, new, g, g_new,
            )  # fmt: skip
            return (new, g_new, error), new

        nothing = jax.tree.map(jnp.zeros_like, y0)
        g0 = tree_sub(k0, polynomial(jnp.zeros((), real))[1])
        slope_at_end = polynomial(jnp.ones((), real))[1]
        starts = _fractions(_CORRECTIONS, real)[:-1]
        (_, _, error), corrections = jax.lax.scan(correct, (nothing, g0, nothing), starts)
        nodes = jax.tree.map(_corrected, nodes, corrections)
        y1 = jax.tree.map(lambda n: n[_PREDICTIONS], nodes)
        f1 = terms.vf(t1, y1, args)
        g1 = tree_sub(terms.prod(f1, control), slope_at_end)
        return Advance(
            y1=y1,
            f1=f1,
            y_error=jax.tree.map(lambda e, g: e + 0.4 / _CORRECTIONS * g, error, g1),
            dense_info={"nodes": nodes},
            evaluations=_PREDICTIONS * few + _CORRECTIONS * many - 1,
            possible=wanted[1] <= self.max_stages,
        )

    def placed(self, dense_info, y0):
        return {"nodes": jax.tree.map(lambda n, y: n + y, dense_info["nodes"], y0)}


def _fractions(count, real):
    return jnp.arange(count + 1, dtype=real) / count


def _part(slope, start, y, k, count, stages, real):
    """The second-order method over one of `count` parts of a step whose slopes are `slope`."""
    return chebyshev_step(
        lambda x, y: tree_scale(1 / count, slope(start + x / count, y)),
        y,
        tree_scale(1 / count, k),
        stages,
        real,
    )


def _unless_last(slope, end, y):
    """The slope where the next part starts; where the step ends, the field is evaluated later."""
    zeros = jax.tree.map(jnp.zeros_like, y)
    return jax.lax.cond(end > 1 - 1e-3, lambda: zeros, lambda: slope(end, y))


def _corrected(nodes, corrections):
    """The nodes, plus the polynomial through the corrections."""
    places = _fractions(_PREDICTIONS, corrections.dtype)
    shares = jax.vmap(lambda x: weights(x, _CORRECTIONS))(places)
    return nodes + jnp.tensordot(shares[:, 1:], corrections, axes=1)


def weights(place: Float[Array, ""], parts: int) -> Float[Array, "nodes"]:
    """Values of the Lagrange polynomials of the ends of equal parts of a step."""
    places = _fractions(parts, place.dtype)
    same = jnp.eye(parts + 1, dtype=bool)
    apart = jnp.where(same, 1, places[:, None] - places[None, :])
    return jnp.prod(jnp.where(same, 1, (place - places[None, :]) / apart), axis=1)


def combination(
    nodes: PyTree[Float[Array, "nodes ..."]], coefficients: Float[Array, "nodes"]
) -> PyTree[Array]:
    """The nodes, each times its coefficient, added up."""
    return jax.tree.map(lambda n: jnp.tensordot(coefficients.astype(n.dtype), n, axes=1), nodes)
