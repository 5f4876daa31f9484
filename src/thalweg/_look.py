"""Looking at a point of a flow: does it converge to a place near by, pass a saddle, or go on?"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._critical_point import CriticalPoint
from ._modes import ROUNDING_COST, Modes, gradient_and_rounding, modes, rounding_norm
from ._newton import DENSE, Newton, newton
from ._precision import jit
from ._trees import tree_axpy, tree_dot, tree_dtype, tree_norm, tree_scale, tree_size, tree_sub
from .curvature import Eigenvalues, extreme_eigenvalues
from .flows import Arrival, Departure

# The part of the way since the start that Newton's method may jump: to a point that stands alone,
# and within a flat valley, where it does not come out exactly where the flow does.
_LONGEST_JUMP, _VALLEY_JUMP = 0.05, 1e-4
_HARDLY = 1e-6
_EIGENVALUES = 4
# Residuals to reach, beyond as many parameters as the whole space is searched for.
_RESIDUAL = 1e-6
# Where curvature is looked at along a line, as parts of a distance.
_PLACES = 2.0 ** (-np.arange(10) / 2)
# What Newton's method makes of the gradient at the least where it converges; towards infinity each
# step makes of an exponential 1/e of it.
_CONVERGES = 0.1
# The part of the gradient that negative curvature accounts for, at the least, on the way out of a
# saddle. Along a single direction it is all of it, but for terms of higher order.
_ACCOUNTS = 0.5
# A point stands alone if the gradient left there moves it by no more than this part of its size.
_ALONE = 1e-3
# The error reported is this multiple of the gradient divided by the curvature. The curvature is
# known at single points only.
_MARGIN = 1.25


@dataclass(frozen=True)
class Passage:
    """A flow on its way past a saddle, and how far away from it: on which side it leaves."""

    index: int
    component: float
    error: float

    def cast_on(self, end: Arrival) -> Arrival:
        """The end of a flow that may have left the saddle on the wrong side."""
        doubt = (
            " The flow passed a saddle, where its component along directions in which the landscape"
            f" curves down was {self.component:.1e}. That is no more than the error there,"
            f" {self.error:.1e}: the exact flow may have left the saddle on another side."
        )
        return replace(end, error=math.inf, message=end.message + doubt)


@dataclass(frozen=True)
class Place:
    """Where Newton's method led to, and what is known about it.

    `rest`: how far the flow's limit may be from there, by what the method has left to go.
    """

    newton: Newton
    jump: float
    eigenvalues: Eigenvalues
    index: int
    isolated: bool
    rest: float


class Look:
    """One look at a point of a flow that may have arrived; `cost` is what was spent so far."""

    def __init__(self, objective, params, first, norm, error, rate, momentum):
        self._objective, self._params = objective, params
        self._norm, self._error, self._rate = norm, error, rate
        self._size = float(tree_norm(params))
        self._moved = float(tree_norm(tree_sub(params, first)))
        self._eps = float(jnp.finfo(tree_dtype(params)).eps)
        self._momentum = momentum
        self._speed = float(tree_norm(momentum.velocity)) if momentum else 0.0
        # Whoever starts at a critical point has not moved.
        self._hardly = _HARDLY * self._size
        self._reach = _LONGEST_JUMP * self._moved + self._hardly
        self._length = max(self._size, self._moved) or 1.0
        self.cost = 1

    def near(self, tried: Newton, tolerance: float) -> bool:
        """Whether Newton's method converges, to a place near the flow."""
        jump = self._jump(tried)
        converges = tried.norm <= _CONVERGES * self._norm or jump <= self._hardly
        return jump <= self._reach and tried.norm <= tolerance and converges

    def longest(self, place: Place, arrived: bool) -> float:
        """How far off the limit may be. Along a valley the flow leads elsewhere than the method."""
        return self._reach if place.isolated or arrived else _VALLEY_JUMP * self._moved

    def place(self, at: Newton) -> Place:
        """What is known about where Newton's method led to."""
        size = tree_size(at.point)
        whole = {"basis_size": size, "tolerance": self._eps} if size <= DENSE else {}
        found = extreme_eigenvalues(
            self._objective,
            at.point,
            largest=0,
            smallest=min(_EIGENVALUES, size),
            **{"tolerance": _RESIDUAL, **whole},
        )
        self.cost += 2 * int(found.products)
        low = float(found.lower[0])
        # A direction counts as curving down only where its curvature, over the distance travelled,
        # accounts for the gradient that is left.
        weight = -found.upper * self._length
        index = int(jnp.sum((found.upper < 0) & (weight >= _ACCOUNTS * at.norm)))
        isolated, rest = low > 0 and at.norm <= _ALONE * low * self._length, math.inf
        if isolated:
            # How the landscape curves where Newton's next steps may lead, along its flattest line.
            there = self._least_curvature(at.point, [_flattest(found)], 2 * at.norm / low)
            isolated = there > 0.5 * low
            rest = at.norm / min(low, there) if isolated else math.inf
        return Place(at, self._jump(at), found, index, isolated, rest)

    def swings(self, place: Place | None, arrived: bool) -> bool:
        """Whether the velocity may carry the flow elsewhere, far along a valley or out of a well.

        A well is seen to hold it where the landscape curves up half as much as at the minimum,
        along the velocity and along the flattest line, until it has risen by the kinetic energy.
        """
        if not self._speed:
            return False
        if not (place and place.isolated):
            allowed = self.longest(place, arrived) if place else self._reach
            return self._coasting() > allowed
        low = float(place.eigenvalues.lower[0])
        swing = place.jump + min(self._coasting(), self._speed / math.sqrt(low))
        if swing > self._reach:
            return True
        lines = [tree_scale(1 / self._speed, self._momentum.velocity), _flattest(place.eigenvalues)]
        # Half the curvature needs the root of two times the way.
        return self._least_curvature(place.newton.point, lines, 1.5 * swing) <= 0.5 * low

    def _least_curvature(self, point: PyTree, lines: list[PyTree], distance: float) -> float:
        """The least curvature along some lines, up to this distance on their two sides.

        The places grow by the root of two, so that no well of the landscape is stepped over.
        """
        places = np.concatenate([side * distance * _PLACES for side in (1.0, -1.0)])
        places = jnp.asarray(places, tree_dtype(point))
        self.cost += 2 * len(places) * len(lines)
        return min(float(_curvatures(self._objective, point, line, places)) for line in lines)

    def _coasting(self) -> float:
        """How far the velocity would carry the flow over flat ground."""
        return self._speed * self._momentum.duration if self._speed else 0.0

    def settled(self, place: Place) -> Place | None:
        """The place, once Newton's method can do no more; `None` if the flow moves on from there.

        Whatever the tolerance, a slope that is more than rounding moves the flow, if only slowly:
        to where the method leads as well, if the landscape curves up along it, and to no place that
        is known where it is flat.
        """
        at, whole = place.newton, tree_size(self._params) <= DENSE
        noise = rounding_norm(gradient_and_rounding(self._objective, at.point))
        short = _CONVERGES * (place.jump + self._hardly) if whole else 0.0
        more = newton(
            self._objective, at.point, at.norm, self._rate, noise, taken=at.steps, short=short
        )
        self.cost += ROUNDING_COST + more.cost
        if more.steps:
            place = self.place(more._replace(steps=at.steps + more.steps))
        if place.isolated:
            return place
        if not whole:
            return replace(place, rest=0.0) if more.norm <= noise else None
        if more.norm > noise and not math.isfinite(more.rest):
            # Newton's method gave up: it leads to no place at all.
            return None
        found = self._modes(more.point, place)
        rest, flat = found.upward.distance, found.flat
        if np.any(self._falling(found)):
            return None
        if np.any(flat.real_slope > flat.resolution * rest):
            return None
        return replace(place, rest=max(rest, more.rest) if math.isfinite(more.rest) else rest)

    def passage(self) -> Passage | None:
        """How the flow passes a saddle, if the landscape curves down where it is."""
        here = self.place(Newton(self._params, self._norm, 0, 0, math.inf))
        if not here.index:
            return None
        found = self._modes(self._params, here)
        down = found.downward
        seen = down.part(np.abs(down.slope) > self._blur(found))
        component = float(np.linalg.norm(seen.slope / seen.curvature))
        return Passage(here.index, component, self._error) if component else None

    def end(self, place: Place) -> Arrival:
        """The end of a flow that converges to a place."""
        if place.index:
            return self._where_it_curves_down(place)
        return self._arrival(place)

    def end_here(self) -> Arrival:
        """The end of a flow whose gradient is small, but not because of a place that is near."""
        here = self.place(Newton(self._params, self._norm, 0, 0, math.inf))
        return self._where_it_curves_down(here) if here.index else self._nowhere(here)

    def _where_it_curves_down(self, place: Place) -> Arrival:
        """The end beside a saddle, where a flow stays by symmetry alone.

        On the way that leads into a saddle neither the flow nor the gradient has a component along
        the directions in which the landscape curves down at the saddle.
        """
        found = self._modes(self._params, place)
        down, stable = found.downward, found.upward.distance
        blur, real = self._blur(found), self._falling(found)
        if np.any(real):
            return self._passing(place, down.part(real), stable)
        flat = found.flat
        if stable > self._reach or np.any(flat.real_slope > flat.resolution * stable):
            return self._nowhere(place)
        # A start that is off the way by its own rounding would be seen to be so.
        sharp = blur < 0.1 * np.abs(down.curvature) * self._eps * self._length
        none = (down.slope == 0) | ((np.abs(down.slope) <= blur) & sharp)
        if np.all(none) and (found.complete or place.index < _EIGENVALUES or self._norm == 0):
            reason = (
                ". A symmetry leads there, up to rounding: any component along the directions in"
                " which the landscape curves down would grow"
            )
            # The companion, which starts a little beside, leaves the saddle.
            advice = (
                "A smaller `rtol` does not help: parameters that differ in their last digits leave"
                " the saddle. To keep the symmetry, follow a flow of symmetric parameters alone."
            )
            return replace(self._arrival(replace(place, rest=stable), reason), advice=advice)
        message = (
            f"the gradient norm fell to {self._norm:.1e} at a saddle of index {place.index}, up to"
            " rounding: whether the flow stays there, or where it goes on to, cannot be told."
            " `gradient_norm(...)` of a smaller tolerance may tell."
        )
        return self._undecided(place, message)

    def _passing(self, place: Place, down: Modes, stable: float) -> Arrival:
        """The end where the flow goes on, along modes in which the landscape curves down."""
        curvature, slope = np.abs(down.curvature), np.abs(down.slope)
        away = slope / curvature
        component = float(np.linalg.norm(away))
        first = int(np.argmin(np.log(np.maximum(self._length / away, 1)) / curvature))
        departure = Departure(float(curvature[first]), float(away[first]), self._length)
        where = (
            f"beside a saddle of index {place.index}, which the flow leaves"
            if math.hypot(component, stable) <= self._reach
            else "where no critical point is near, and the flow goes on"
        )
        message = (
            f"the gradient norm fell to {self._norm:.1e} {where}: the landscape curves down by"
            f" {curvature[first]:.2g}, and along that direction the flow is {away[first]:.1e} away"
            f" from where its slope vanishes. `gradient_norm({slope.max() / 2:.1e})` follows it on."
        )
        return self._undecided(place, message, component, departure)

    def _nowhere(self, place: Place) -> Arrival:
        message = (
            f"the gradient norm fell to {self._norm:.1e}, but no critical point that stands alone"
            " is near: it may be a degenerate one or far along a valley that is nearly flat, or the"
            " infimum may lie at infinity."
        )
        return self._undecided(place, message)

    def _undecided(self, place, message, component=0.0, departure=None) -> Arrival:
        """The end at the point of the flow itself."""
        limit = CriticalPoint(
            self._norm, place.index, place.eigenvalues, 0.0, 0, False, False, component
        )
        error = self._error + self._rounding(self._params)
        return Arrival(self._params, limit, error, self.cost, message, departure)

    def _arrival(self, place: Place, reason: str = "") -> Arrival:
        """The end at a critical point.

        An isolated one is where it is, however the flow came near it, if the exact flow cannot be
        in another well; along a valley the flow's own error stays, and it may lead elsewhere by as
        much as the jump.
        """
        at, alone = place.newton, place.isolated
        limit = CriticalPoint(
            at.norm, place.index, place.eigenvalues, place.jump, at.steps, True, alone
        )
        message = f"converged to {limit}{reason}."
        error = self._error + place.jump + 2 * place.rest + self._coasting()
        if alone and self._same_well(place):
            error = _MARGIN * place.rest
        elif alone:
            message += " With an error that large the exact flow may have come to another one."
        error += self._rounding(at.point)
        return Arrival(at.point, limit, error, self.cost, message)

    def _same_well(self, place: Place) -> bool:
        """Whether the landscape curves up from the minimum as far as the flow's error goes."""
        if not self._error > _ALONE * self._length:
            return True
        if self._error > self._reach:
            return False
        low, line = float(place.eigenvalues.lower[0]), _flattest(place.eigenvalues)
        return self._least_curvature(place.newton.point, [line], self._error) > 0.5 * low

    def _modes(self, params: PyTree, place: Place) -> Modes:
        """The gradient at `params`, along the eigenvectors at a place near it."""
        slopes = gradient_and_rounding(self._objective, params)
        found = modes(self._objective, place.newton.point, slopes, place.eigenvalues)
        self.cost += ROUNDING_COST + found.cost
        return found

    def _blur(self, found: Modes) -> np.ndarray:
        """What the error of the eigenvectors makes of the gradient, along those of `downward`."""
        off = found.downward.resolution * found.upward.distance
        return off + 4 * self._eps * self._norm

    def _falling(self, found: Modes) -> np.ndarray:
        """Along which of the modes of `downward` the flow moves on, rounding left aside."""
        down = found.downward
        return np.abs(down.slope) > down.rounding + self._blur(found)

    def _jump(self, at: Newton) -> float:
        return float(tree_norm(tree_sub(at.point, self._params)))

    def _rounding(self, point: PyTree) -> float:
        return 4 * self._eps * float(tree_norm(point))


def _flattest(eigenvalues: Eigenvalues) -> PyTree:
    """The direction in which the landscape curves up least."""
    return jax.tree.map(lambda v: v[0], eigenvalues.vectors)


@jit
def _curvatures(objective, params, direction, places) -> Float[Array, ""]:
    """The least curvature along a line, over some places on it."""

    def there(place):
        return tree_dot(direction, objective.hvp(tree_axpy(place, direction, params), direction))

    return jnp.min(jax.lax.map(there, places))
