"""The spectral radius of a vector field's Jacobian, tracked along a solution.

Stabilised explicit methods need to know how far the spectrum of the Jacobian reaches. A nonlinear
power iteration finds out from the field alone: the Jacobian acts on the current direction by a
difference quotient of the field, at the price of one evaluation. Warm-started from the direction
found before, a few evaluations keep the estimate good while the solution moves.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_axpy, tree_dtype, tree_norm, tree_scale, tree_scattered, tree_sub

_MINIMUM_ITERATIONS = 2
# For how many evaluations of the field an estimate is trusted: at first, and at most. Two spent on
# the next estimate are then a tenth, or a thirtieth, of all.
_FIRST_PATIENCE, _LAST_PATIENCE = 20, 60


class SpectralRadius(eqx.Module):
    """What is known of the spectral radius: an estimate, its direction, its age in evaluations."""

    value: Float[Array, ""]
    direction: PyTree[Array]
    age: Int[Array, ""]
    patience: Int[Array, ""]

    @staticmethod
    def unknown(y: PyTree[Array]) -> "SpectralRadius":
        """No estimate yet; the first one starts from a fixed direction."""
        return SpectralRadius(
            value=jnp.asarray(-1.0, tree_dtype(y)),
            direction=tree_scattered(y),
            age=jnp.asarray(0),
            patience=jnp.asarray(_FIRST_PATIENCE),
        )

    @property
    def due(self) -> Bool[Array, ""]:
        """Whether the estimate is missing or was used for as many evaluations as it deserves."""
        return (self.value < 0) | (self.age >= self.patience)

    def used(self, evaluations: Int[Array, ""]) -> "SpectralRadius":
        """The same knowledge, so many evaluations older."""
        return eqx.tree_at(lambda r: r.age, self, self.age + evaluations)

    def estimated(
        self,
        field: Callable[[PyTree[Array]], PyTree[Array]],
        y: PyTree[Array],
        f: PyTree[Array],
        *,
        accuracy: float = 0.05,
        max_iterations: int = 40,
    ) -> tuple["SpectralRadius", Int[Array, ""]]:
        """Iterate until the estimate changes by less than `accuracy`, relative.

        `f` is `field(y)`, known already. Returns the new knowledge and the number of evaluations
        it took. An estimate that barely moved is trusted for longer next time.
        """
        dtype = tree_dtype(y)
        scale = jnp.sqrt(jnp.finfo(dtype).eps) * jnp.maximum(tree_norm(y), 1e-3)

        def image(direction):
            return tree_scale(1 / scale, tree_sub(field(tree_axpy(scale, direction, y)), f))

        def unfinished(carry):
            _, value, previous, count = carry
            settled = jnp.abs(value - previous) <= accuracy * value
            return (count < _MINIMUM_ITERATIONS) | (~settled & (count < max_iterations))

        def iterate(carry):
            direction, value, _, count = carry
            new = image(direction)
            size = tree_norm(new)
            # A vanishing or non-finite image says nothing about where to look next.
            usable = (size > 0) & jnp.isfinite(size)
            inverse = jnp.where(usable, 1 / jnp.where(usable, size, 1), 0)
            direction = jax.tree.map(lambda n, d: jnp.where(usable, n * inverse, d), new, direction)
            return direction, jnp.where(jnp.isfinite(size), size, value), value, count + 1

        start = (self.direction, jnp.maximum(self.value, 0), self.value, jnp.asarray(0))
        direction, value, _, count = jax.lax.while_loop(unfinished, iterate, start)
        steady = jnp.abs(value - self.value) <= accuracy * value
        longer = jnp.minimum(2 * self.patience, _LAST_PATIENCE)
        patience = jnp.where(steady, longer, _FIRST_PATIENCE)
        return SpectralRadius(value, direction, jnp.asarray(0), patience), count
