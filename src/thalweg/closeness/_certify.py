"""The largest step size with which gradient descent provably stays near a flow."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from .._checks import check_instance, check_positive
from .._precision import jit
from .._trees import tree_norm
from ..flows import GradientFlow
from ..objectives import AbstractObjective, check_objective
from ..results import AbstractResult, Trajectory, axes_of, citations
from ._certify_run import RunCertificate
from ._evidence import Curvature, Evidence, Hypothesis, Intervals, grounds_of, listed
from ._growth import added_within, amplification, grown, grown_within

# Up to so many steps the inequality is solved step by step; beyond, the source is rounded up.
_MOST_STEPS = 200_000
_ROUNDING = 1e-12
# How near to the largest step size that the inequality allows.
_PRECISION = 1.01
# A tube is looked for between two others if the step could be so many times longer there.
_NEAR = 1.1


class Certificate(AbstractResult):
    """With this step size gradient descent stays within epsilon of the flow.

    - `step_size`: from the inequality of `certify`, solved piece by piece; 0 if there is none.
        It divides `t1`.
    - `uniform_step_size`: from one bound each on sharpness and gradient all along the path, as in
        the published condition.
    - `epsilon`, `t1`: the distance and the time up to which it holds.
    - `radius`: of the tube around the flow that allows the longest step, at most epsilon. Gradient
        descent does not leave it.
    - `hypotheses`: what it rests on; `proved`: whether none of that was sampled or assumed.
    - `bending`: for each piece between two saved times, the bound on minus the lowest eigenvalue of
        the Hessian in the tube; `source`: that on how fast the gradient turns along a step.
    - `amplification`: by how much negative curvature may multiply an early error.
    - `gradients`: what it cost, all tubes that were tried together.
    """

    step_size: float
    uniform_step_size: float
    epsilon: float
    radius: float
    t1: float
    hypotheses: tuple[Hypothesis, ...] = eqx.field(static=True)
    times: np.ndarray
    bending: np.ndarray
    source: np.ndarray
    gradients: int

    @property
    def proved(self) -> bool:
        """Whether there is such a step size and nothing was sampled or assumed."""
        return self.step_size > 0 and all(h.proved for h in self.hypotheses)

    @property
    def amplification(self) -> float:
        """By how much negative curvature may have multiplied an early error."""
        return amplification(self.bending, np.diff(self.times))

    @property
    def limit(self) -> str:
        """What keeps the step size from being larger, in a sentence."""
        if self.step_size == 0:
            return "No step size can be vouched for: the bounds in the tube are not finite."
        if self.amplification > 10:
            return (
                "Negative curvature limits the step size: it may multiply errors by"
                f" {self.amplification:.3g}. Denser saved times of the flow make the tube narrower,"
                f" and that smaller (there were {len(self.times)})."
            )
        return (
            "The turning of the gradient limits the step size: over the time it adds"
            f" {float(np.sum(self.source * np.diff(self.times))) / 2:.3g} per unit of step size."
        )

    def lines(self) -> list[str]:
        """The promise, what it rests on, and what limits it."""
        promise = (
            f"gradient descent with steps of {self.step_size:.6g} stays within"
            f" {self.epsilon:g} of the flow to t = {self.t1:g}"
        )
        if self.radius < self.epsilon:
            promise += f" (in a tube of radius {self.radius:.3g})"
        return listed(promise, self.proved, self.hypotheses, self.limit)

    def to_xarray(self) -> xr.Dataset:
        """The step sizes, and the bounds for each piece between two saved times."""
        names = ("step_size", "uniform_step_size", "epsilon", "radius", "t1", "amplification")
        variables: dict[str, Any] = {name: float(getattr(self, name)) for name in names}
        variables["bending"] = (["piece"], np.asarray(self.bending))
        variables["source"] = (["piece"], np.asarray(self.source))
        pieces = {
            "start": (["piece"], np.asarray(self.times[:-1]), {"units": "flow time"}),
            "end": (["piece"], np.asarray(self.times[1:]), {"units": "flow time"}),
        }
        attributes = {
            "result": "certificate",
            "gradients": self.gradients,
            "limit": self.limit,
            **grounds_of(self.hypotheses, self.proved),
            "references": citations(certify),
        }
        return xr.Dataset(variables, pieces, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The bound on minus the lowest eigenvalue in the tube, piece by piece."""
        ax = axes_of(ax, "time", "minus the lowest eigenvalue, at most")
        ax.stairs(np.asarray(self.bending), np.asarray(self.times))
        return ax


def certify(
    objective: AbstractObjective,
    flow: Trajectory | RunCertificate,
    *,
    epsilon: float,
    evidence: Evidence | None = None,
) -> Certificate:
    """The largest step size with which gradient descent stays within epsilon of a flow.

    The largest that the argument below gives in any tube of a radius up to epsilon. Where curvature
    grows fast, a narrower tube may allow a longer step: radii are halved as long as that is so, and
    the best one is looked for between them, to a few percent of the step size.

        flow = tw.integrate(tw.GradientFlow(), objective, network, save_at=np.linspace(0, 10, 101))
        print(tw.certify(objective, flow, epsilon=0.1, evidence=tw.closeness.ClosedForm()))

    Let e(t) be the distance between the flow and the polygon p through the iterates. While it is
    below the tube's radius,

    `e' <= m(t) e + |grad f(theta_k) - grad f(p(t))|`,

    where -m is below the lowest eigenvalue of the Hessian in the ball of that radius around the
    flow; negative m, positive curvature, counts. The gradient's difference is at most the time
    since the step began times its rate of turning in the tube. The flow between two saved times
    lies in a ball, since its length is at most the root of time times loss lost; the error of the
    saved points widens it. The denser the saved times, the better.

    **Arguments:**

    - `flow`: a gradient flow with its first row at time 0, or a `RunCertificate`, whose iterates
        stand for the flow with an error that is proved where the certificate is.
    - `epsilon`: the Euclidean distance over all parameters.
    - `evidence`: `ClosedForm()`, which can prove, or `Intervals()`, the default, for any
        network.

    **Raises:** TypeError for anything else than a gradient flow; ValueError for an epsilon that is
    not positive or not above the flow's own error, a flow that does not begin at time 0, and where
    a hypothesis of the evidence fails.

    ??? cite "Reference"

        Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural networks", Advances
        in Neural Information Processing Systems, 2021; Hairer, Nørsett and Wanner, Solving Ordinary
        Differential Equations I (1993), section I.10.
    """
    check_objective(objective)
    check_positive(epsilon, "epsilon")
    path = _path_of(flow)
    _check_same(objective, flow.objective, _row(path.params, 0))
    evidence = Intervals() if evidence is None else evidence
    check_instance(evidence, Evidence, "evidence", "evidence, ClosedForm() or Intervals()")
    if path.errors.max() >= epsilon:
        raise ValueError(
            f"epsilon: {epsilon:g} is not above the flow's own error,"
            f" {path.errors.max():.3g}; use a smaller `rtol`."
        )
    first = _row(path.params, 0)
    evidence.check(objective, first)
    along = _Along(objective, path, evidence)
    tube = _best(along.tube, float(epsilon), float(path.times[-1]))
    return Certificate(
        step_size=tube.step,
        uniform_step_size=tube.uniform,
        epsilon=float(epsilon),
        radius=tube.radius,
        t1=float(path.times[-1]),
        hypotheses=tuple(dict.fromkeys((*evidence.hypotheses(objective, first), *path.hypotheses))),
        times=path.times,
        bending=tube.bending,
        source=np.prod(tube.factors, axis=0),
        gradients=along.cost,
    )


def _check_same(
    objective: AbstractObjective, other: AbstractObjective | None, params: PyTree
) -> None:
    """Refuse an objective that is not that of the flow, as far as one value tells."""
    if other is None or other is objective:
        return
    ours, theirs = float(objective.value(params)), float(other.value(params))
    if abs(ours - theirs) > 1e-6 * max(abs(ours), abs(theirs)):
        raise ValueError(
            f"objective: its loss at the flow's start is {ours:.6g}, but that of the flow's own"
            f" objective is {theirs:.6g}."
        )


class _Path(NamedTuple):
    """Points near the exact flow, how near, and why that is believed."""

    times: np.ndarray
    params: PyTree
    errors: np.ndarray
    hypotheses: tuple[Hypothesis, ...]


def _path_of(flow: Any) -> _Path:
    if isinstance(flow, RunCertificate):
        errors = flow.bound[flow.looks]
        finite = np.isfinite(errors)
        rows = jax.tree.map(lambda x: x[: finite.sum()], flow.params)
        if finite.sum() < 2:
            raise ValueError("flow: the certificate says nothing beyond the start.")
        return _Path(flow.times[flow.looks][finite], rows, errors[finite], flow.hypotheses)
    check_instance(flow, Trajectory, "flow", "a gradient flow's Trajectory or a RunCertificate")
    if not isinstance(flow.dynamics, GradientFlow):
        raise TypeError(
            f"flow: expected a gradient flow, got {type(flow.dynamics).__name__}; for runs of"
            " gradient descent see `certify_run`."
        )
    times = np.asarray(flow.times)
    if times[0] != 0 or len(times) < 2:
        raise ValueError("flow: its first saved time must be 0, followed by others.")
    assert flow.error is not None
    how = Hypothesis("the flow's own error: the distance of two solutions", "sampled")
    return _Path(times, flow.params, np.asarray(flow.error), (how,))


class _Tube(NamedTuple):
    """All within a radius of the flow, and the largest step size that does not leave it."""

    radius: float
    step: float
    uniform: float
    bending: np.ndarray
    factors: np.ndarray


def _best(tube: Callable[[float], _Tube], epsilon: float, longest: float) -> _Tube:
    """Of all tubes with a radius up to epsilon, nearly the one with the longest step.

    Bounds grow with the radius. So the step grows at most in proportion to it, which tells where no
    better one can be; and it has one maximum where the bounds are sums and exponentials of powers
    of the radius. Whatever is found is a bound: only how good it is rests on that.
    """
    tubes, factor = [tube(epsilon)], 2.0
    while tubes[-1].step == 0 and math.isfinite(factor) and tubes[-1].radius / factor > 0:
        # Bounds are not finite; they may be so only in a tube that is far narrower.
        tubes.append(tube(tubes[-1].radius / factor))
        factor *= factor
    while 0 < tubes[-1].step < longest and tubes[-1].step >= max(t.step for t in tubes):
        tubes.append(tube(tubes[-1].radius / 2))
    while True:
        tubes.sort(key=lambda t: t.radius)
        best = max(range(len(tubes)), key=lambda i: tubes[i].step)
        enough = min(_NEAR * tubes[best].step, longest)
        around = itertools.pairwise(tubes[max(best - 1, 0) : best + 2])
        worth = [(a, b) for a, b in around if a.step * b.radius / a.radius > enough]
        if not worth:
            return tubes[best]
        tubes += [tube(math.sqrt(a.radius * b.radius)) for a, b in worth]


class _Along:
    """Bounds along a path in tubes of any radius, and what they cost so far."""

    def __init__(self, objective: AbstractObjective, path: _Path, evidence: Evidence):
        self.objective, self.path, self.evidence = objective, path, evidence
        self.rows = [_row(path.params, i) for i in range(len(path.times))]
        facts = [_facts(objective, row) for row in self.rows]
        loss, self.slope, self.turn = (np.asarray(x, float) for x in zip(*facts, strict=True))
        self.cost = 3 * len(facts)
        if evidence.covers_balls:
            near = [self._ball(i, error) for i, error in enumerate(path.errors)]
            # What the loss of the exact flow may differ by from that of the saved point.
            sharp = np.array([ball.sharpness for ball in near])
            uncertain = self.slope * path.errors + sharp * path.errors**2 / 2
            fallen = loss[:-1] - loss[1:] + uncertain[:-1] + uncertain[1:]
            # How far the flow goes from one saved time to the next.
            self.ways = np.sqrt(np.diff(path.times) * np.maximum(fallen, 0.0))

    def tube(self, radius: float) -> _Tube:
        """The tube of this radius."""
        bounds = self._pieces if self.evidence.covers_balls else self._points
        times, spans = self.path.times, np.diff(self.path.times)
        # What overflows in a wide tube is seen below.
        with np.errstate(over="ignore", invalid="ignore"):
            bending, factors, uniform = bounds(radius)
            if not (np.all(np.isfinite(bending)) and np.all(np.isfinite(factors))):
                return _Tube(radius, 0.0, 0.0, bending, factors)
            step = _largest(times, bending, factors, radius)
            per_step = grown(0.0, bending, uniform * grown_within(bending, spans), spans)
        whole = radius / float(per_step.max()) if per_step.max() > 0 else math.inf
        return _Tube(radius, step, min(whole, float(times[-1])), bending, factors)

    def _ball(self, i: int, radius: float) -> Curvature:
        ball = self.evidence.in_ball(self.objective, self.rows[i], radius)
        self.cost += ball.gradients
        return ball

    def _pieces(self, radius):
        """From balls that cover all between two saved times."""
        wide = radius + self.path.errors[:-1] + self.ways
        balls = [self._ball(i, size) for i, size in enumerate(wide)]
        bending = np.array([ball.bending for ball in balls])
        sharpness = np.array([ball.sharpness for ball in balls])
        factors = np.array([sharpness, self.slope[:-1] + sharpness * wide])
        return bending, factors, float(np.prod(factors.max(axis=1)))

    def _points(self, radius):
        """From the saved points and what is around them."""
        wide = radius + self.path.errors
        balls = [self._ball(i, size) for i, size in enumerate(wide)]
        bent = np.array([ball.bending for ball in balls])
        sharp = np.array([ball.sharpness for ball in balls])
        steep = self.slope + sharp * wide
        # H g on the flow, and what g changes by within the tube.
        turning = self.turn + sharp**2 * wide
        turning = np.maximum(turning[:-1], turning[1:])
        factors = np.array([turning, np.ones_like(turning)])
        return np.maximum(bent[:-1], bent[1:]), factors, float(sharp.max() * steep.max())


def _largest(times, bending, factors, epsilon) -> float:
    """The largest step size, of those that divide the time, that keeps the error below epsilon.

    The source of errors is the product of two factors, which a step may take from two pieces: the
    gradient where it began, the curvature where it has come to.
    """
    total = times[-1]

    def keeps(count):
        step = total / count
        begin, end = step * np.arange(count), step * np.arange(1, count + 1)
        # A step may reach over several pieces; rounding of times must not hide one.
        low = np.searchsorted(times, begin * (1 - _ROUNDING), side="right") - 1
        high = np.searchsorted(times, end * (1 + _ROUNDING), side="left")
        low = np.clip(low, 0, len(bending) - 1)
        high = np.clip(high, low + 1, len(bending))
        m, *both = (_window_max(values, low, high) for values in (bending, *factors))
        rate = np.prod(both, axis=0)
        errors = grown(0.0, m, rate * added_within(m, step), np.full(count, step))
        return float(np.max(errors)) <= epsilon

    fewest = 1
    while not keeps(fewest):
        if fewest >= _MOST_STEPS:
            return _shorter(times, bending, factors, epsilon)
        fewest = min(2 * fewest, _MOST_STEPS)
    too_few = fewest // 2
    while fewest - too_few > 1 and fewest > _PRECISION * too_few:
        middle = (fewest + too_few) // 2
        if keeps(middle):
            fewest = middle
        else:
            too_few = middle
    return total / fewest


def _shorter(times, bending, factors, epsilon) -> float:
    """For steps shorter than any piece: as if the gradient had turned for a whole step already."""
    spans = np.diff(times)
    # A step may have begun in the piece before.
    earlier = np.concatenate([factors[:, :1], factors[:, :-1]], axis=1)
    before = np.prod(np.maximum(factors, earlier), axis=0)
    per_step = float(grown(0.0, bending, before * grown_within(bending, spans), spans).max())
    if not np.isfinite(per_step):
        return 0.0
    return times[-1] / math.ceil(times[-1] / min(epsilon / per_step, float(spans.min())))


def _window_max(values, low, high):
    """`max(values[low:high])` for many windows, none of them empty."""
    padded = np.append(values, -np.inf)
    return np.maximum.reduceat(padded, np.stack([low, high], axis=1).ravel())[::2]


def _row(params, i):
    return jax.tree.map(lambda x: x[i], params)


@jit
def _facts(objective, params):
    """The loss, the gradient's norm, and that of the Hessian times the gradient."""
    loss, gradient = objective.value_and_gradient(params)
    return loss, tree_norm(gradient), tree_norm(objective.hvp(params, gradient))
