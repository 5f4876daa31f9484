"""The equations of motion that backward differentiation follows: what a step has to solve.

Both have one symmetric matrix, that of the force, since the velocity of a second-order equation can
be eliminated from a step.
"""

from collections.abc import Callable
from typing import Any, Protocol

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._trees import tree_axpy, tree_norm, tree_sub

# Of the formulas of order 0 to 5 (the first is none): how far the region where they are unstable
# reaches into the left half-plane, and the cosine of the angle of the sector where they are stable.
_DEPTHS = (0.0, 0.0, 0.0, 1 / 12, 2 / 3, 2.3272)
_COSINES = (0.0, 0.0, 0.0, 0.0693, 0.2867, 0.6185)
# Up to this frequency times the step the formula of order five damps an oscillation; those of order
# three and four multiply it, by about the exponential of a coefficient times a power of that.
_RESOLVED = 0.7
# Up to this, what they multiply it by does not matter: on the way to order five they are needed.
_FINE = 0.1
_GAIN_3, _GAIN_4 = 1 / 4, 0.32
# Solves are made no more accurate than this damping asks for, however small the friction is.
_LEAST_DAMPING = 1e-3

Force = Callable[[PyTree[Array]], PyTree[Array]]


class Equation(Protocol):
    """The motion of a position under a force, as the derivative of a state with time.

    A step of an implicit formula asks for a state whose derivative is `rate` times its correction
    plus `slope`. For the correction u of the position this is `shift u + pull = force`, with the
    force at the corrected position.
    """

    def position(self, state: PyTree[Array]) -> PyTree[Array]:
        """The part of a state that the force depends on."""
        ...

    def force(self, terms: diffrax.AbstractTerm, t: Any, args: PyTree) -> Force:
        """The force as a function of the position; it costs one evaluation of the field."""
        ...

    def derivative(self, state: PyTree[Array], force: PyTree[Array]) -> PyTree[Array]:
        """The derivative of a state under a force."""
        ...

    def fastest(self, curvature: Float[Array, ""]) -> Float[Array, ""]:
        """The fastest rate of the motion where the force has that curvature."""
        ...

    def longest(self, h: Float[Array, ""], curvature: Float[Array, ""]) -> Float[Array, "degrees"]:
        """Up to which step the formulas of order 0 to 5 are stable, seen from a step `h`.

        `curvature` is the largest one of the force.
        """
        ...

    def damping(self, curvature: Float[Array, ""]) -> Float[Array, ""]:
        """By what part motion is damped while it turns; errors of solves are to be smaller.

        1 where it does not oscillate.
        """
        ...

    def bend(self, force: Float[Array, ""], curvature: Float[Array, ""]) -> Float[Array, ""]:
        """The length of the second derivative of the position, from rest."""
        ...

    def shift(self, rate: Float[Array, ""]) -> Float[Array, ""]:
        """What a step adds to the matrix of the force."""
        ...

    def pull(
        self, state: PyTree[Array], slope: PyTree[Array], rate: Float[Array, ""]
    ) -> PyTree[Array]:
        """What the force at an uncorrected `state` would have to be."""
        ...

    def completed(
        self,
        u: PyTree[Array],
        state: PyTree[Array],
        slope: PyTree[Array],
        rate: Float[Array, ""],
    ) -> PyTree[Array]:
        """The correction of the whole `state` that belongs to one of its position."""
        ...

    def norm(self, change: PyTree[Array], rate: Float[Array, ""]) -> Float[Array, ""]:
        """How far a change of the state moves the position, within the step or later."""
        ...


class FirstOrder(eqx.Module):
    """`y' = force(y)`: the state is the position."""

    def position(self, state):
        return state

    def force(self, terms, t, args):
        return lambda y: terms.vf(t, y, args)

    def derivative(self, state, force):
        return force

    def fastest(self, curvature):
        return curvature

    def longest(self, h, curvature):
        return jnp.full(len(_DEPTHS), jnp.inf, h.dtype)

    def damping(self, curvature):
        return jnp.ones_like(curvature)

    def bend(self, force, curvature):
        return curvature * force

    def shift(self, rate):
        return rate

    def pull(self, state, slope, rate):
        return slope

    def completed(self, u, state, slope, rate):
        return u

    def norm(self, change, rate):
        return tree_norm(change)


class SecondOrder(eqx.Module):
    """`x'' + friction x' = force(x)`: the state is the position and the velocity."""

    friction: Float[Array, ""] | float

    def position(self, state):
        return state[0]

    def force(self, terms, t, args):
        def at_rest(x):
            return terms.vf(t, (x, jax.tree.map(jnp.zeros_like, x)), args)[1]

        return at_rest

    def derivative(self, state, force):
        _, v = state
        return v, tree_axpy(-self._like(v), v, force)

    def fastest(self, curvature):
        return jnp.maximum(jnp.asarray(self.friction, curvature.dtype), jnp.sqrt(curvature))

    def longest(self, h, curvature):
        # Every mode that oscillates is damped with half the friction.
        half = jnp.asarray(self.friction, h.dtype) / 2
        frequency = jnp.sqrt(jnp.maximum(curvature, 0)).astype(h.dtype)
        depths, cosines = (jnp.asarray(row, h.dtype) for row in (_DEPTHS, _COSINES))
        stable = (half * h >= depths) | (half >= frequency * cosines)
        # Elsewhere friction has to take more from the fastest oscillation than the formula adds.
        ratio = half / frequency
        third, fourth = (ratio / _GAIN_3) ** (1 / 3), (ratio / _GAIN_4) ** (1 / 5)
        most = jnp.stack([ratio, ratio, ratio, third, fourth, jnp.full_like(ratio, jnp.inf)])
        return jnp.where(stable, jnp.inf, jnp.clip(most, _FINE, _RESOLVED) / frequency)

    def damping(self, curvature):
        frequency = jnp.sqrt(jnp.maximum(curvature, 0))
        ratio = jnp.asarray(self.friction, frequency.dtype) / jnp.where(frequency > 0, frequency, 1)
        return jnp.where(frequency > 0, jnp.clip(ratio, _LEAST_DAMPING, 1), 1)

    def bend(self, force, curvature):
        return force

    def shift(self, rate):
        return rate * self._damped(rate)

    def pull(self, state, slope, rate):
        _, v = state
        friction, damped, lead = self._like(v), self._damped(rate), self._lead(state, slope)
        return jax.tree.map(lambda v, s, e: friction * v + s + damped * e, v, slope[1], lead)

    def completed(self, u, state, slope, rate):
        return u, tree_axpy(rate, u, self._lead(state, slope))

    def norm(self, change, rate):
        x, v = change
        return jnp.hypot(tree_norm(x), tree_norm(v) / self._damped(rate))

    def _lead(self, state, slope):
        """By how much the position moves faster than the velocity says."""
        return tree_sub(slope[0], state[1])

    def _damped(self, rate):
        return rate + jnp.asarray(self.friction, rate.dtype)

    def _like(self, v):
        return jnp.asarray(self.friction, jax.tree.leaves(v)[0].dtype)
