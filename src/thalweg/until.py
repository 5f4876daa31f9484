"""Where a flow is followed to: the end of `tw.integrate(..., until=...)`."""

import math

import equinox as eqx
from jaxtyping import PyTree

from ._checks import check_positive
from ._critical_point import CriticalPoint as CriticalPoint
from ._look import Look
from ._newton import gradient_norm_at, newton
from .flows import Arrival, Momentum
from .objectives import AbstractObjective

# Newton's method is tried when the gradient has fallen to this part of what it was last tried at.
_TRY_AGAIN = 0.03


class GradientNorm(eqx.Module):
    """See `gradient_norm`."""

    tolerance: float

    def __init__(self, tolerance: float):
        check_positive(tolerance, "tolerance")
        self.tolerance = float(tolerance)

    def watch(self, objective: AbstractObjective, params: PyTree) -> "GradientNormWatch":
        """Look at a flow that begins at `params`."""
        return GradientNormWatch(self.tolerance, objective, params)


class GradientNormWatch:
    """Looks at one flow: whether its gradient is small enough, or Newton's method ends it."""

    # The gradient at the beginning.
    cost = 1

    def __init__(self, tolerance: float, objective: AbstractObjective, params: PyTree):
        self.tolerance = tolerance
        self._first, self._doubt = params, None
        self._last = float(gradient_norm_at(objective, params))

    def __call__(
        self,
        objective: AbstractObjective,
        params: PyTree,
        error: float,
        rate: float,
        momentum: Momentum | None = None,
    ) -> Arrival:
        """Whether the flow is where it is going, or so near that Newton's method finds the place.

        `error` is that of `params`; slower than `rate`, nothing has relaxed yet. A velocity must
        not carry the flow out of reach.
        """
        norm = float(gradient_norm_at(objective, params))
        arrived = norm <= self.tolerance
        if not math.isfinite(norm) or not (arrived or norm <= _TRY_AGAIN * self._last):
            return Arrival(cost=1)
        before, self._last = self._last, norm
        look = Look(objective, params, self._first, norm, error, rate, momentum)
        tried = newton(objective, params, norm, rate, self.tolerance)
        look.cost += tried.cost
        place = look.place(tried) if look.near(tried, self.tolerance) else None
        if place and not place.isolated and (arrived or not place.index):
            place = look.settled(place)
        if place and not place.index and place.jump + place.rest > look.longest(place, arrived):
            place = None
        if look.swings(place, arrived):
            self._last = before
            return Arrival(cost=look.cost)
        if not arrived and (not place or place.index):
            # The flow is on its way, or passing a saddle.
            passage = look.passage()
            if passage and (not self._doubt or passage.index >= self._doubt.index):
                self._doubt = passage if passage.component <= error else None
            return Arrival(cost=look.cost)
        end = look.end(place) if place else look.end_here()
        if self._doubt and end.limit.index < self._doubt.index:
            return self._doubt.cast_on(end)
        return end


def gradient_norm(tolerance: float) -> GradientNorm:
    """Follow a flow until the Euclidean norm of its gradient is at most `tolerance`.

        ending = tw.until.gradient_norm(1e-12)
        flow = tw.integrate(tw.GradientFlow(), objective, params, until=ending)
        print(flow.limit)

    The flow is followed until Newton's method, from where it is, converges at once (with the whole
    Hessian up to 200 parameters, with conjugate gradients on Hessian-vector products beyond), so
    that the last digits cost next to nothing; the jump is at most a twentieth of the way that the
    flow came. Critical points that the flow merely passes are recognised by a negative eigenvalue.
    A tolerance that is met on the way past one ends the flow there with `found` false, and the
    message says how fast the flow leaves and which tolerance follows it on. A saddle is an arrival
    only for a flow that has no component at all along the directions in which the landscape curves
    down there. What was reached is in `Trajectory.limit`, a `CriticalPoint`.

    Look at `flow.limit.found`, not at the status alone. The status "completed" says that the
    gradient norm fell to the tolerance with a small error, also where the flow goes on from there
    (`found` is false). "stopped" says that the tolerance was not met by `t1`, within `max_steps` or
    in this precision; `limit` is `None` then. "uncontrolled" says that the error at the end is too
    large to rely on.

    A flow with momentum ends only where its velocity does not carry it away: by no more than a
    twentieth of the way that it came, and into no region where the landscape curves up much less
    than at the minimum. One without friction never ends, and is "stopped" at `t1`.

    Curvature below the rounding of the Hessian (beyond 200 parameters, below a millionth of its
    norm) counts as none: what a flow does along such directions, at times beyond the inverse, is
    not known.

    **Raises:** ValueError for a tolerance that is not positive.
    """
    return GradientNorm(tolerance)
