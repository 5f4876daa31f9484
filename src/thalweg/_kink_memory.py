"""The share of every kink's two sides in a step, remembered from one step to the next.

A flow that meets a kink crosses it or slides along it. What it does follows from its speed towards
the kink on either side. That speed is known as a straight line in the share of the positive side:
one point of it is what the last step's gradient amounts to, whose share is remembered; its slope,
the jump of the speed, was measured when the share last changed. Where both sides drive the flow to
the kink, the share of the next step is the one with which the step ends on the kink.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The least change of a share by which the jump is measured.
_LEAST_CHANGE = 0.1
# The jump is measured anew in every step in which the share changes: an increase counts at once and
# a decrease by this part, since an overestimate slows the approach to the kink down, and an
# underestimate overshoots.
_FORGOTTEN = 0.3
# The kink is approached with the jump taken to be so much larger than it was measured: steps are
# stable up to 4/3 of the jump that they assume.
_CAUTION = 1.5
# The part of the speed's change in the last step that is expected in the next one. All of it would
# make kinks that act on each other unstable.
_AHEAD = 0.5


class KinkMemory(eqx.Module):
    """What is known of the kinks of one operation, elementwise.

    `share` is the part of the last step that belongs to the positive side of a kink, and `before`
    the one of the step before it; `speed` is the speed of the kink's argument that led to the last
    step, and `jump` by how much it is larger on the negative side of the kink (0 if not known).
    """

    share: Float[Array, "..."]
    before: Float[Array, "..."]
    speed: Float[Array, "..."]
    jump: Float[Array, "..."]


def first_memory(truth: Bool[Array, "..."], dtype: jnp.dtype) -> KinkMemory:
    """Nothing but the side that a flow starts on."""
    share, none = truth.astype(dtype), jnp.zeros(truth.shape, dtype)
    return KinkMemory(share, share, none, none)


def crossed_share(middle: Array, end: Array, truth: Array) -> Float[Array, "..."]:
    """The part of the segment on which a margin is positive; `truth` if it does not change sign."""
    half = jnp.abs(end - middle)
    crosses = jnp.abs(middle) < half
    inside = 0.5 + 0.5 * middle / jnp.where(crosses, half, 1)
    return jnp.where(crosses, inside, truth.astype(middle.dtype))


def next_memory(
    memory: KinkMemory, middle: Array, end: Array, truth: Array, length: Array
) -> KinkMemory:
    """The shares of a step of some length, along a segment given by its middle and its end.

    The segment is the step as it would be with the last gradient.
    """
    middle, end = jax.lax.stop_gradient((middle, end))
    length = jnp.asarray(length, middle.dtype)
    change = 2 * (end - middle)
    speed = change / length
    turned = memory.share - memory.before
    measured = jnp.abs(turned) > _LEAST_CHANGE
    slope = (memory.speed - speed) / jnp.where(measured, turned, 1)
    eased = memory.jump + _FORGOTTEN * (slope - memory.jump)
    jump = jnp.where(measured, jnp.maximum(jnp.maximum(slope, eased), 0), memory.jump)
    # How far the argument would go on either side of the kink.
    there, here = (change + length * jump * (memory.share - side) for side in (1, 0))
    slides = (there < 0) & (here > 0)
    reach = jnp.where(slides, _CAUTION * length * jump, 1)
    # The segment's end is that of the step with the last gradient. The speed also changes for other
    # reasons than the share, and goes on to.
    drift = speed - memory.speed + jump * turned
    landing = jnp.clip(memory.share + (end + _AHEAD * length * drift) / reach, 0, 1)
    share = jnp.where(slides, landing, crossed_share(middle, end, truth))
    return KinkMemory(share, memory.share, speed, jump)
