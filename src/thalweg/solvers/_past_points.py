"""Polynomials in logarithmic time through the last points of a solution."""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_sub


class BDFInterpolation(diffrax.AbstractLocalInterpolation):
    """The polynomial, in logarithmic time, through a step's end and the points before it."""

    t0: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    t1: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    past: PyTree[Float[Array, "points ..."]]
    ago: Float[Array, "points"]
    order: Int[Array, ""]
    rate: Float[Array, ""]

    def evaluate(self, t0, t1=None, left=True):
        del left
        if t1 is not None:
            return tree_sub(self.evaluate(t1), self.evaluate(t0))
        place = jnp.log1p((t0 - self.t1) / self.rate)
        used = jnp.arange(len(self.ago)) <= self.order
        return combined(self.past, value_weights(-self.ago - place, used))


def combined(
    points: PyTree[Float[Array, "points ..."]],
    weights: Float[Array, "points"],
    around: PyTree[Array] | None = None,
) -> PyTree[Array]:
    """The points, each times its weight, added up.

    With weights whose sum is one; counted `around` the first point, with weights whose sum does not
    matter. Differences from the first point keep what is rounded off small.
    """

    def leaf(p):
        total = jnp.tensordot(weights[1:].astype(p.dtype), p[1:] - p[0], axes=1)
        return total if around is not None else p[0] + total

    return jax.tree.map(leaf, points)


def value_weights(
    places: Float[Array, "points"], used: Bool[Array, "points"]
) -> Float[Array, "points"]:
    """Weights with which the polynomial through the `used` points has its value at zero."""
    pair = used[:, None] & used[None, :] & ~jnp.eye(len(places), dtype=bool)
    apart = jnp.where(pair, places[None, :] - places[:, None], 1)
    return jnp.where(used, jnp.prod(jnp.where(pair, places[None, :] / apart, 1), axis=1), 0)


def slope_weights(
    places: Float[Array, "points"], used: Bool[Array, "points"]
) -> Float[Array, "points"]:
    """Weights of the slope, at zero, of the polynomial through zero and the `used` points.

    The weight of the point at zero is minus their sum.
    """
    return jnp.where(used, value_weights(places, used) / jnp.where(used, places, 1), 0)
