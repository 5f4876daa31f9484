"""A bound on how far a run of gradient descent is from its flow, at every step."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from .._checks import check_instance, check_positive_integer
from .._precision import jit
from .._trees import tree_axpy, tree_dtype, tree_norm, tree_stack, tree_sub
from ..objectives import AbstractObjective, check_objective
from ..optimizers import GradientDescent
from ..results import AbstractResult, Trajectory, axes_of, citations, draw_line
from ._evidence import Curvature, Evidence, Hypothesis, Intervals, grounds_of, listed
from ._growth import added_within, amplification, grown, grown_within

# How often a tube that turns out too narrow is widened.
_WIDENINGS = 6
# A tube so many times wider than the parameters are large says nothing.
_WIDEST = 10.0
# A bound of limited use is not followed over stretches so many times shorter than the longest.
_SHORTEST = 16
# What adding a step to the parameters rounds off, in units of their resolution.
_ROUNDING = 4.0


class RunCertificate(AbstractResult):
    """At every step of a run of gradient descent, at most how far the exact flow is.

    - `bound`: shape `(steps + 1,)`, for `|theta_k - theta(k step_size)|`, k = 0, 1, ...; infinite
        from where nothing can be said, see `limit`.
    - `hypotheses`: what it rests on; `proved`: whether none of that was sampled or assumed.
        Bounds allow for the rounding of the steps and of their gradients, by sums of absolute
        values: with closed-form evidence that is proved as well, where matrix products are as exact
        as the dtype; else it is a margin.
    - `looks`: the steps at which curvature was bounded; `bending`: for each stretch between two of
        them the bound on minus the lowest eigenvalue of the Hessian; `params`: the iterates there.
    - `gradients`: what it cost.
    - `useful`: the largest bound that was asked for; larger ones are infinite.
    """

    step_size: float
    bound: Float[np.ndarray, "steps + 1"]
    hypotheses: tuple[Hypothesis, ...] = eqx.field(static=True)
    looks: np.ndarray
    bending: np.ndarray
    turning: float
    params: PyTree[Float[Array, "looks ..."]]
    gradients: int
    objective: AbstractObjective
    useful: float = math.inf

    @property
    def times(self) -> Float[np.ndarray, "steps + 1"]:
        """Flow time of every step."""
        return self.step_size * np.arange(len(self.bound))

    @property
    def proved(self) -> bool:
        """Whether the bounds are finite and nothing was sampled or assumed."""
        return bool(np.isfinite(self.bound[-1])) and all(h.proved for h in self.hypotheses)

    @property
    def amplification(self) -> float:
        """By how much negative curvature may have multiplied an early error."""
        return amplification(self.bending, np.diff(self.looks) * self.step_size)

    @property
    def until(self) -> int:
        """The last step with a bound; up to there it is as good as its hypotheses."""
        return int(np.flatnonzero(np.isfinite(self.bound))[-1])

    @property
    def limit(self) -> str:
        """What keeps the bound from being smaller, in a sentence."""
        if not np.isfinite(self.bound[-1]) and math.isfinite(self.useful):
            return (
                f"Beyond step {self.until} the bound would be more than {self.useful:.3g}, which"
                " says nothing, and was not followed further. A shorter step keeps it small for"
                " longer."
            )
        if not np.isfinite(self.bound[-1]):
            return (
                f"Nothing can be said beyond step {self.until}: the farther the flow may be, the"
                " more negative the curvature in the tube may be, and the tube grows without end."
                " A shorter step keeps it narrow for longer."
            )
        if self.amplification > 10:
            return (
                f"Negative curvature limits the bound: it may multiply errors by"
                f" {self.amplification:.3g}."
            )
        return (
            f"The turning of the gradient within steps limits the bound: it adds up to"
            f" {self.turning:.3g}."
        )

    def lines(self) -> list[str]:
        """The promise, what it rests on, and what limits it."""
        promise = (
            f"gradient descent, {len(self.bound) - 1} steps of {self.step_size:g}: at step"
            f" {self.until} at most {self.bound[self.until]:.3g} from the flow"
        )
        proved = all(h.proved for h in self.hypotheses)
        return listed(promise, proved, self.hypotheses, self.limit)

    def to_xarray(self) -> xr.Dataset:
        """The bound at every step."""
        coordinates = {
            "time": (["step"], self.times, {"units": "flow time"}),
            "step": np.arange(len(self.bound)),
        }
        attributes = {
            "result": "certificate of a run",
            "step_size": self.step_size,
            "gradients": self.gradients,
            "limit": self.limit,
            **grounds_of(self.hypotheses, self.proved),
            "references": citations(certify_run),
        }
        return xr.Dataset({"bound": (["step"], self.bound)}, coordinates, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The bound on the distance to the flow, as far as it is finite."""
        ax = axes_of(ax, "time", "distance to the flow, at most")
        known = slice(0, self.until + 1)
        draw_line(ax, self.times[known], self.bound[known])
        return ax


def certify_run(
    objective: AbstractObjective,
    run: Trajectory,
    *,
    evidence: Evidence | None = None,
    looks: int = 24,
    useful: float = math.inf,
) -> RunCertificate:
    """Bound the distance of a run of gradient descent from the exact flow, step by step.

        certificate = tw.certify_run(objective, run, evidence=tw.closeness.ClosedForm())
        certificate.bound[run.steps]

    Let p be the polygon through the iterates and e(t) its distance from the flow. While the flow
    stays within r of p,

    `e' <= m e + |grad f(theta_k) - grad f(p(t))|`,

    where -m is below every eigenvalue of the Hessian within r of p: negative m, positive curvature,
    makes e smaller. The inequality is solved step by step, and r chosen so that e stays below it.
    The gradient's turning within a step is bounded by the sharpness in the tube where that is known
    all over it; else it is looked at in the middle and at the end of every step, for one gradient
    more, and may be as much faster elsewhere as these two tell. The flow is not computed, so that
    no error of an integrator enters.

    **Arguments:**

    - `run`: what `tw.descend(tw.GradientDescent(...), ...)` returned; its steps are made again.
    - `evidence`: `ClosedForm()`, which can prove, or `Intervals()`, the default, for any
        network.
    - `looks`: the number of stretches with a curvature of their own, to begin with; where the tube
        would grow without end, a stretch is split.
    - `useful`: a bound above this says nothing, such as the distance that the run travels. The
        certificate ends there, which saves most of the cost of one that would come to nothing.

    **Raises:** TypeError for a run of another optimizer; ValueError for one of another objective,
    and for a `useful` that is negative;
    ValueError or TypeError where a hypothesis of the evidence fails.

    ??? cite "Reference"

        Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I (1993), section I.10;
        Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural networks", Advances
        in Neural Information Processing Systems, 2021.
    """
    check_objective(objective)
    check_instance(run, Trajectory, "run", "a Trajectory")
    if not isinstance(run.dynamics, GradientDescent) or run.steps is None:
        raise TypeError(
            f"run: expected a run of GradientDescent, got one of {type(run.dynamics).__name__}."
        )
    check_positive_integer(looks, "looks")
    if not useful >= 0:
        raise ValueError(f"useful: must not be negative, got {useful}.")
    evidence = Intervals() if evidence is None else evidence
    check_instance(evidence, Evidence, "evidence", "evidence, ClosedForm() or Intervals()")
    evidence.check(objective, run.initial)
    step, total = float(run.dynamics.step_size), int(run.steps[-1])
    places = np.unique(np.round(np.linspace(0, total, min(looks, total) + 1)).astype(int))
    longest = int(np.diff(places).max(initial=0))
    # Where a bound may be as large as it likes, it is followed to its last step.
    shortest = 1 if math.isinf(useful) else max(1, longest // _SHORTEST)
    eps = float(jnp.finfo(tree_dtype(run.initial)).eps)
    walker = _Walker(objective, evidence, step, eps)
    params, cost, turning = run.initial, 1, 0.0
    bound, bending, rows, ends = [np.zeros(1)], [], [params], [0]
    gradient = _gradient(objective, params)
    pending = list(itertools.pairwise(places))[::-1]
    # As arrays, lest every step size and every number of steps be compiled anew.
    traced = jnp.asarray(step, tree_dtype(params))
    while pending:
        first, last = pending.pop()
        count = jnp.asarray(last - first)
        made = _walk(objective, params, gradient, traced, count, longest, evidence.covers_balls)
        stretch = _Stretch(
            params, made[0], float(made[2]), *(np.asarray(x)[: last - first] for x in made[3:])
        )
        cost += (last - first) * (1 if evidence.covers_balls else 2)
        found, m, spent, source = walker.over(stretch, bound[-1][-1])
        cost += spent
        hopeless = not (np.isfinite(found[-1]) and found[-1] <= useful)
        if hopeless and last - first > shortest:
            # Over a shorter stretch the error grows by less, and a narrower tube may do.
            middle = (first + last) // 2
            pending += [(middle, last), (first, middle)]
            continue
        bound.append(found[1:])
        bending.append(m)
        turning += source
        params, gradient = made[0], made[1]
        rows.append(params)
        ends.append(int(last))
        if hopeless:
            break
    if ends[-1] == total:
        _check_same_end(params, jax.tree.map(lambda x: x[-1], run.params), eps)
    done = np.concatenate(bound)
    done[done > useful] = np.inf
    hypotheses = evidence.hypotheses(objective, run.initial)
    if not evidence.covers_balls:
        hypotheses += (
            Hypothesis("turning of the gradient between the middles and ends of steps", "sampled"),
        )
    return RunCertificate(
        step_size=step,
        bound=np.append(done, np.full(total + 1 - len(done), np.inf)),
        hypotheses=hypotheses,
        looks=np.asarray(ends),
        bending=np.asarray(bending),
        turning=turning,
        params=tree_stack(rows),
        gradients=int(cost),
        objective=objective,
        useful=useful,
    )


def _check_same_end(made: PyTree, given: PyTree, eps: float) -> None:
    """Refuse a run that was made on another objective than the certificate."""
    apart = float(tree_norm(tree_sub(made, given)))
    if apart > eps**0.5 * float(tree_norm(given)):
        raise ValueError(
            f"objective: the run's steps, made again, end {apart:.3g} from where the run ended; was"
            " it made on another objective?"
        )


class _Stretch(eqx.Module):
    """Steps between two looks: their ends, and for each step sizes of what matters.

    `turn` is the gradient's over a step, where sampled at the greatest rate within it.
    """

    start: PyTree
    end: PyTree
    farthest: float
    slope: np.ndarray
    turn: np.ndarray
    size: np.ndarray


class _Walker(eqx.Module):
    """Solves the inequality over one stretch after the other."""

    objective: AbstractObjective
    evidence: Evidence
    step: float
    eps: float

    def over(self, stretch: _Stretch, error: float) -> tuple[np.ndarray, float, int, float]:
        """The error at every step, minus the lowest curvature, the cost, and what was added."""
        rounded = _ROUNDING * self.eps * (stretch.size + self.step * stretch.slope)
        cost, added = 0, rounded
        # As if no curvature were negative, with room for some.
        least = error + np.sum(0.5 * self.step * stretch.turn + rounded)
        width, m = 2.0 * float(least), math.nan
        for _ in range(_WIDENINGS):
            curvature = self._curvature(stretch, width)
            cost += curvature.gradients
            m = curvature.bending
            if self.evidence.covers_balls:
                rate = curvature.sharpness * stretch.slope
            else:
                rate = stretch.turn / self.step
            bendings = np.full(len(rate), m)
            wrong, spent = self._rounding(stretch, width)
            cost += spent
            added = rate * added_within(bendings, self.step) + rounded
            added += wrong * grown_within(bendings, np.full(len(rate), self.step))
            errors = grown(error, bendings, added, self.step)
            widest = float(np.max(errors))
            if widest <= width:
                return errors, m, cost, float(np.sum(added))
            if not widest <= _WIDEST * (1 + float(np.max(stretch.size))):
                break
            width = 1.5 * widest
        return np.full(len(stretch.slope) + 1, np.inf), m, cost, float(np.sum(added))

    def _rounding(self, stretch: _Stretch, width: float) -> tuple[float, int]:
        """How far computed gradients may be from gradients, and what it cost to know."""
        if self.evidence.covers_balls:
            radius = stretch.farthest + width
            return self.evidence.rounding(self.objective, stretch.start, radius)
        ends = [
            self.evidence.rounding(self.objective, point, width)
            for point in (stretch.start, stretch.end)
        ]
        return max(wrong for wrong, _ in ends), sum(spent for _, spent in ends)

    def _curvature(self, stretch: _Stretch, width: float) -> Curvature:
        if self.evidence.covers_balls:
            radius = stretch.farthest + width
            return self.evidence.in_ball(self.objective, stretch.start, radius)
        ends = [
            self.evidence.in_ball(self.objective, point, width)
            for point in (stretch.start, stretch.end)
        ]
        return Curvature(
            max(c.bending for c in ends),
            max(c.sharpness for c in ends),
            sum(c.gradients for c in ends),
        )


@jit
def _gradient(objective, params):
    return objective.gradient(params)


@jit
def _walk(objective, params, gradient, step, count, longest, ends_do):
    """Steps of gradient descent, of which `count` are made; with what is known of each."""

    def turning(here, slope, new):
        whole = tree_sub(new, slope)
        if ends_do:
            return tree_norm(whole)
        middle = objective.gradient(tree_axpy(-step / 2, slope, here))
        half = jax.tree.map(lambda a, b: 2 * (a - b), middle, slope)
        # The mean rates to the middle and to the end. Were it to change evenly, the rate at the
        # beginning would be their difference from the one to the middle; that again is the margin.
        change = tree_norm(tree_sub(whole, half))
        return jnp.maximum(tree_norm(whole), tree_norm(half)) + 2 * change

    def advance(carry, k):
        here, slope = carry
        there = tree_axpy(-step, slope, here)
        new = objective.gradient(there)
        facts = (
            jnp.where(k < count, tree_norm(tree_sub(there, params)), 0),
            tree_norm(slope),
            turning(here, slope, new),
            tree_norm(here),
        )
        kept = jax.tree.map(lambda a, b: jnp.where(k < count, a, b), (there, new), carry)
        return kept, facts

    (end, last), (away, slope, turn, size) = jax.lax.scan(
        advance, (params, gradient), jnp.arange(longest)
    )
    return end, last, jnp.max(away), slope, turn, size
