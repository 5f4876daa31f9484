"""Integrating a flow: to a time, to a global error, or to its limit."""

from typing import Any

import diffrax
from jaxtyping import Array, Float, PyTree

from .._checks import check_instance, check_positive
from ..objectives import AbstractObjective
from ..results import Trajectory, follow
from ._aim import follow_with_error
from ._base import Flow
from ._integration import Integration, checked_times
from ._until import Ending, follow_until


def integrate(
    flow: Flow,
    objective: AbstractObjective,
    params: PyTree,
    t1: float | None = None,
    save_at: Float[Array, "saves"] | Any | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    error: float | None = None,
    until: Ending | None = None,
    max_steps: int = 1_000_000,
) -> Trajectory:
    """Integrate a flow from `params` at rest, time 0, and estimate the global error.

    **Arguments:**

    - `flow`: for instance `GradientFlow()`.
    - `objective`, `params`: the landscape and the starting point.
    - `t1`: the final time; defaults to the last of `save_at`.
    - `save_at`: times to save at, increasing, from 0 to `t1`; defaults to 0 and `t1`.
    - `rtol`, `atol`: tolerances of a step, which steer its size; what was reached is in
        `Trajectory.error`. `solvers.BDF` keeps the Euclidean norm of a step's error, over all n
        parameters, below `0.2 (atol sqrt(n) + rtol |y|)`; the other solvers keep the root mean
        square of the errors over `atol + rtol |y|`, taken elementwise, below 1. With the default
        `atol`, `rtol` alone matters as long as the parameters' root mean square is above 0.01.
        Defaults: `rtol` 1e-6 (float32: 1.2e-5; a network with kinks such as ReLU: 1e-4), `atol` a
        hundredth of `rtol`.
    - `solver`: any diffrax solver with an embedded error estimate. `None` lets the flow decide: for
        a gradient flow `solvers.BDF`, with two million parameters and more `solvers.RKC2`; for a
        network with kinks `solvers.AveragedMidpoint`; for heavy-ball flow with `friction t1` from
        50 up `solvers.BDF`, for other flows with momentum Dopri8, with `rtol` from 3e-4 up Tsit5.
    - `error`: in place of tolerances, the global error to aim at: a Euclidean distance over all
        parameters, at every saved time. The flow is integrated again with tighter tolerances until
        the error reported is no larger; what earlier attempts cost is among `error_gradients`.
    - `until`: follow the flow to its limit, for instance `tw.until.gradient_norm(1e-12)`; without
        `t1`, for as long as it takes. The last row is then the end, and `Trajectory.limit` says
        what it is: `limit.found` is false where the tolerance was met but the flow goes on. The
        status is "completed" in both cases, and "stopped" if the tolerance was not met.
    - `max_steps`: a limit on attempted steps.

    **Returns:** a `Trajectory` whose `error` is, at every saved time, the estimated Euclidean
    distance to the exact flow: 1.25 times the distance to a second solution at four times the
    tolerances (five with BDF; eight with a method of order two, and over kinks), which exceeds the
    error if the second solution's error is at least 1.8 times it; for a smooth gradient flow, at
    least what the largest lag between the two so far amounts to. Features of the landscape that
    are narrower than a step may be missed by both.
    A flow that ends early (status "diverged" or "stopped") has the point it reached as last row.
    The status "uncontrolled" says that the error reported is larger than was asked for, or more
    than half the distance that the flow went.

    **Raises:** ValueError for options that exclude each other, times that are not increasing, a
    horizon that is not positive, or tolerances that the parameters' dtype cannot give; whatever
    `AbstractObjective.check` raises.
    """
    if error is not None:
        check_positive(error, "error")
        if rtol is not None or atol is not None:
            raise ValueError("error: takes the place of rtol and atol; give it or them.")
        if until is not None:
            raise ValueError("error: cannot be combined with until; give tolerances instead.")
    options: dict[str, Any] = {"solver": solver, "max_steps": max_steps}
    if error is None:
        options |= {"rtol": rtol, "atol": atol}
    if t1 is not None:
        check_positive(t1, "t1")
    if save_at is not None:
        times = checked_times(save_at)
        if t1 is not None and times[-1] > t1 * (1 + 1e-12):
            raise ValueError(f"save_at: goes to {times[-1]:g}, beyond t1 = {t1:g}.")
    if until is not None:
        check_instance(until, Ending, "until", "an ending such as tw.until.gradient_norm(1e-12)")
        return follow_until(flow, objective, params, until, save_at=save_at, t1=t1, **options)
    if save_at is None:
        if t1 is None:
            raise ValueError("t1: give the final time, or the times to save at in save_at.")
        save_at = [0.0, t1]
    if error is not None:
        return follow_with_error(flow, objective, params, error, save_at=save_at, **options)
    return follow(Integration(flow, objective, params, save_at=save_at, **options))
