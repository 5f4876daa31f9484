"""The share of every kink's two sides in a step, remembered from one step to the next.

A flow that meets a kink crosses it or slides along it. What it does follows from its speed towards
the kink on either side. That speed is known as a straight line in the share of the positive side:
one point of it is what the last step's gradient amounts to, whose share is remembered; its slope is
the jump of the speed, which follows from the kink alone. Where both sides drive the flow to the
kink, the share of the next step is the one with which the step ends on the kink.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._kinks import crossed_share

# The kink is approached with the jump taken to be so much larger than it is: it is an estimate, and
# steps are stable up to 4/3 of the jump that they assume.
_CAUTION = 1.5
# Kinks that act on each other are, together, steeper than each alone. Where a flow steps over a
# kink and comes no nearer, the jump is taken to be larger by a factor, ...
_RAISED = 1.5
# ... which falls to its root where the flow leaves the kink, and slowly where all is well: where it
# comes so much nearer.
_FORGOTTEN = 0.97
_NEARER = 0.9
# More than any number of kinks makes of it.
_LARGEST = 1e6


class KinkMemory(eqx.Module):
    """What is known of the kinks of one operation, elementwise.

    `share` is the part of the last step that belongs to the positive side of a kink. On the
    negative side, the speed of the kink's argument is larger by the product of `steepness` and
    `pull`: of how steep the argument is, times the jump of the slope, and of how much the function
    changes with what comes out of the kink. `gain` is by how much larger the jump is taken to be
    because of other kinks. `swing` says how far from rest on the kink the last step began: the
    speed, and the distance in units of a speed, with the sign of the argument.
    """

    share: Float[Array, "..."]
    steepness: Float[Array, "..."]
    pull: Float[Array, "..."]
    gain: Float[Array, "..."]
    swing: Float[Array, "..."]

    def pulled(self, pull: Array) -> "KinkMemory":
        """With the derivative of the function by what comes out of the kinks."""
        return eqx.tree_at(lambda m: m.pull, self, pull.astype(self.pull.dtype))

    def seen(self, steepness: Array, weight: float) -> "KinkMemory":
        """With another estimate of the steepness, that counts with a weight."""
        eased = self.steepness + weight * (steepness - self.steepness)
        return eqx.tree_at(lambda m: m.steepness, self, eased)


def first_memory(truth: Bool[Array, "..."], dtype: jnp.dtype) -> KinkMemory:
    """Nothing but the side that a flow starts on."""
    share, none = truth.astype(dtype), jnp.zeros(truth.shape, dtype)
    return KinkMemory(share, none, none, none + 1, none)


def next_memory(
    memory: KinkMemory, middle: Array, end: Array, truth: Array, length: Array
) -> KinkMemory:
    """The shares of a step of some length, along a segment given by its middle and its end.

    The segment is the step as it would be with the last gradient.
    """
    length = jnp.asarray(length, middle.dtype)
    to_kink, speed = end / length, 2 * (end - middle) / length
    gain, swing = _next_gain(memory, to_kink - speed, speed)
    jump = gain * jnp.maximum(memory.steepness * memory.pull, 0)
    # The speed on either side of the kink.
    there, here = (speed + jump * (memory.share - side) for side in (1, 0))
    slides = (there < 0) & (here > 0)
    landing = memory.share + to_kink / jnp.where(slides, _CAUTION * jump, 1)
    share = jnp.where(slides, jnp.clip(landing, 0, 1), crossed_share(middle, end, truth))
    return KinkMemory(share, memory.steepness, memory.pull, gain, swing)


def _next_gain(memory: KinkMemory, start: Array, speed: Array) -> tuple[Array, Array]:
    """How much larger the jump is taken to be, given where the last step has led; and the swing."""
    swing = jnp.where(start < 0, -1, 1) * (jnp.abs(start) + jnp.abs(speed))
    nearer = jnp.abs(swing) < _NEARER * jnp.abs(memory.swing)
    across = swing * memory.swing < 0
    otherwise = jnp.where(across, _RAISED * memory.gain, jnp.sqrt(memory.gain))
    gain = jnp.where(nearer, _FORGOTTEN * memory.gain, otherwise)
    return jnp.clip(gain, 1, _LARGEST), swing
