"""What backward differentiation remembers from one step to the next."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._deflation import Deflation

# A component below the tolerance may be wrong by so many times what it and the tolerance are.
_WRONG = 10.0


class Hidden(eqx.Module):
    """The error because what grows now was below the tolerance before.

    While a faster motion hides it, a growing component is known up to the tolerance only, and two
    solutions may be wrong about it alike. `share` is the tolerance over the speed, in the last step
    in which the speed did not grow; `pace` is the fastest rate of the present growth, 0 while there
    is none; `late` is the largest delay that earlier growth caused. A delay does not heal.
    """

    share: Float[Array, ""]
    pace: Float[Array, ""]
    late: Float[Array, ""]

    @classmethod
    def nothing(cls, zero: Float[Array, ""]) -> "Hidden":
        """At the start, where every component is known."""
        return cls(zero, zero, zero)

    def after(
        self,
        growth: Float[Array, ""],
        h: Float[Array, ""],
        tolerance: Float[Array, ""],
        speed: Float[Array, ""],
    ) -> "Hidden":
        """After a step of length `h`; `growth` is the logarithm of that of the speed."""
        grows = growth > 0
        share = jnp.where(speed > 0, tolerance / jnp.where(speed > 0, speed, 1), self.share)
        return Hidden(
            jnp.where(grows, self.share, share.astype(self.share.dtype)),
            jnp.where(grows, jnp.maximum(self.pace, growth / h), 0).astype(self.pace.dtype),
            jnp.where(grows, self.late, jnp.maximum(self.late, self._delay)),
        )

    @property
    def per_speed(self) -> Float[Array, ""]:
        """The error, over the speed.

        As long as the component grows, the distance between two solutions grows with the speed.
        """
        now = jnp.where(self.pace > 0, self._part / jnp.where(self.pace > 0, self.pace, 1), 0)
        return jnp.maximum(self.late, now)

    @property
    def _part(self) -> Float[Array, ""]:
        """What the component may err by, over itself."""
        tolerance = self.pace * self.share
        return tolerance * (1 + _WRONG * tolerance / (1 + tolerance))

    @property
    def _delay(self) -> Float[Array, ""]:
        return jnp.log1p(self._part) / jnp.where(self.pace > 0, self.pace, 1)


class BDFState(eqx.Module):
    """What one step hands to the next.

    `past`: the last points, the latest first; `ago`: how long ago they were, in logarithmic time;
    `count`: how many of them there are. `rate`: time per logarithmic time. `since`: steps since the
    order or the step changed. `radius`: the largest curvature that was met lately. `scale`: the
    norm of the parameters at the start, or the way to where their slope vanishes if that is longer;
    `way`: the length of the path so far, and at the start that way.
    `trust`: steps until the linearisation is looked at again, and `trusted` how many there were
    last time. `distrust`: steps for which products stay exact. `error`: of the last step, over the
    tolerance. `factor`: what the step is to be multiplied with. `field`: the vector field at the
    last point, which errs by `vague` at most (infinite where a growth from there was not believed);
    `growth`: the logarithm of the factor by which the last step made it grow. `hidden`: the error
    because what grows now was below the tolerance before. `deflation`: approximate eigenvectors of
    the Hessian, for networks of some size.
    """

    past: PyTree[Float[Array, "points ..."]]
    ago: Float[Array, "points"]
    count: Int[Array, ""]
    artificial: Bool[Array, ""]
    order: Int[Array, ""]
    used: Int[Array, ""]
    since: Int[Array, ""]
    failures: Int[Array, ""]
    rate: Float[Array, ""]
    radius: Float[Array, ""]
    scale: Float[Array, ""]
    way: Float[Array, ""]
    trust: Int[Array, ""]
    trusted: Int[Array, ""]
    distrust: Int[Array, ""]
    error: Float[Array, ""]
    factor: Float[Array, ""]
    field: PyTree[Array]
    vague: Float[Array, ""]
    growth: Float[Array, ""]
    hidden: Hidden
    deflation: Deflation | None
    evaluations: Int[Array, ""]
