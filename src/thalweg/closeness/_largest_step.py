"""The step size that keeps an optimizer within a given distance of its flow."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, inf, isfinite
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from .._checks import check_positive
from .._numbers import significant, with_error
from ..flows import integrate
from ..objectives import AbstractObjective
from ..optimizers import GradientDescent, Optimizer, descend
from ..results import AbstractResult, axes_of, draw_line
from ._compare import compare
from ._distance_law import DistanceLaw, predicted_distance

# Runs that confirm, at most, and how near to epsilon is near enough.
_RUNS, _NEAR = 8, 0.95
# Saved times at which a run is compared with the flow, and the share of epsilon that the flow's
# own error may take.
_LOOKS, _SHARE = 32, 0.02


class LargestStep(AbstractResult):
    """A step size with which an optimizer stays within epsilon of its flow, as a run has shown.

    - `step_size`, `steps`: the largest one found, and how many of them reach the final time.
    - `distance`, `error`: the largest distance of that run to the flow over the times compared, and
      its error bar; together at most epsilon.
    - `predicted`: the step size that the first-order law gives.
    - `law`: the law itself; `gradients`: what all of it cost.
    """

    step_size: float
    steps: int
    distance: float
    error: float
    predicted: float
    law: DistanceLaw
    gradients: int

    def lines(self) -> list[str]:
        """The step size, the distance that a run had with it, and what the law predicted."""
        return [
            f"largest step size found: {significant(self.step_size)} ({self.steps} steps)",
            f"distance of that run: {with_error(self.distance, self.error)}",
            f"predicted to first order: {significant(self.predicted)}",
            f"cost: {self.gradients} gradients",
        ]

    def to_xarray(self) -> xr.Dataset:
        """The step size and the distance, and the law that it was looked for with."""
        names = ("step_size", "steps", "distance", "error", "predicted")
        law = self.law.to_xarray().rename({"distance": "law_distance", "error": "law_error"})
        numbers = {name: getattr(self, name) for name in names}
        attributes = {**law.attrs, "result": "largest step", "gradients": self.gradients}
        return law.assign(numbers).assign_attrs(attributes)

    def plot(self, ax: Any = None) -> Any:
        """The law for the step size that was found, and the largest distance that a run had."""
        ax = axes_of(ax, "time", "distance to the flow")
        optimizer = replace(self.law.optimizer, step_size=self.step_size)  # pyright: ignore
        draw_line(ax, self.law.times, self.law.at(optimizer.time_per_step), label="predicted")
        ax.axhspan(
            self.distance - self.error, self.distance + self.error, alpha=0.4, label="of a run"
        )
        ax.legend()
        return ax


def largest_step(
    objective: AbstractObjective,
    params: PyTree,
    epsilon: float,
    t1: float,
    *,
    method: Callable[[float], Optimizer] = GradientDescent,
) -> LargestStep:
    """The largest step size that keeps an optimizer within `epsilon` of its flow up to time `t1`.

        found = tw.largest_step(objective, params, 1e-2, 10.0)
        found.step_size, found.distance

    Found from the first-order law and then confirmed by runs, at 32 times: it is a number that was
    measured, not a bound (for one, see certificates). The step is `t1` over a whole number for
    gradient descent, the square of that with momentum.

    **Arguments:**

    - `objective`, `params`: the landscape, of a smooth network, and where both start.
    - `epsilon`: the Euclidean distance over all parameters that is allowed.
    - `t1`: the final time.
    - `method`: from a step size to the optimizer, with a flow that does not depend on it:
        `tw.GradientDescent`, `tw.Nesterov`, or
        `lambda h: tw.HeavyBall(h, 1 - friction * h**0.5)`.

    **Raises:** ValueError for an epsilon or a final time that is not positive, where no run comes
    within epsilon, and as `predicted_distance` does.
    """
    check_positive(epsilon, "epsilon")
    check_positive(t1, "t1")

    # With momentum the time of a step is the root of its size.
    power = 1 if method(1e-6).limit().real_spectrum else 2

    def of_steps(n):
        step_size = (t1 / n) ** power
        return step_size, method(step_size)

    probe = method((1e-3 * t1) ** power)
    times = np.linspace(0, t1, _LOOKS + 1)
    law = predicted_distance(probe, objective, params, save_at=times, rtol=1e-5)
    gradients = law.stats.gradients + law.stats.error_gradients
    guess = max(1, ceil(t1 / law.longest(epsilon)))
    predicted = (t1 / guess) ** power
    best, too_few, n = None, 0, guess
    for _ in range(_RUNS):
        step_size, optimizer = of_steps(n)
        saved = np.unique(np.round(np.linspace(0, n, min(n, _LOOKS) + 1)).astype(int))
        run = descend(optimizer, objective, params, n, save_steps=saved)
        distance, error = inf, 0.0
        gradients += n
        if run.status.ok:
            flow = integrate(
                optimizer.limit(), objective, params, save_at=run.times, error=_SHARE * epsilon
            )
            gradients += flow.stats.gradients + flow.stats.error_gradients
            gap = compare(run, flow)
            distance, error = float(np.max(gap.distance)), float(np.max(gap.error))
        reached = distance + error
        if reached <= epsilon:
            best = LargestStep(step_size, n, distance, error, predicted, law, gradients)
            if n == 1 or reached >= _NEAR * epsilon or n - 1 == too_few:
                break
        else:
            too_few = max(too_few, n)
        # In proportion to the step, as the law has it, and always between what is known.
        factor = reached / epsilon if isfinite(reached) else 2.0
        wanted = ceil(n * min(max(factor, 0.25), 4.0))
        most = best.steps - 1 if best is not None else 10 * max(wanted, n)
        n = int(np.clip(wanted, too_few + 1, max(most, too_few + 1)))
        if best is not None and n >= best.steps:
            break
    if best is None:
        raise ValueError(
            f"epsilon: {_RUNS} runs with up to {n} steps stayed farther than {epsilon:g} from the"
            f" flow; the law predicts {predicted:.3g} as the step size."
        )
    return eqx.tree_at(lambda b: b.gradients, best, gradients)
