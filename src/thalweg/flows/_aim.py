"""Aiming at a global error: tolerances are made tighter until the estimate is small enough."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._trees import tree_dtype, tree_norm
from ..results import Status, Trajectory, follow
from ._integration import Integration


def follow_with_error(flow, objective, params: PyTree, error: float, **options: Any) -> Trajectory:
    """The flow at tolerances that make the reported error at most `error` at every saved time."""
    eps = float(jnp.finfo(tree_dtype(params)).eps)
    finest = 10 * eps
    size = float(tree_norm(params))
    rtol = float(np.clip(0.1 * error / size if size > 0 else 1e-3, finest, 1e-3))
    spent, best = 0, None
    while True:
        integration = Integration(flow, objective, params, rtol=rtol, **options)
        trajectory = follow(integration)
        stats = trajectory.stats
        assert trajectory.error is not None
        reached = float(jnp.max(trajectory.error))
        cost = replace(stats, error_gradients=stats.error_gradients + spent)
        spent = cost.error_gradients + stats.gradients
        trajectory = replace(trajectory, stats=cost)
        if trajectory.status.kind in ("diverged", "stopped"):
            aim = f"{trajectory.status.message} (Aimed at an error of {error:g}, rtol {rtol:.2g}.)"
            if best is None or trajectory.status.kind == "diverged":
                return replace(trajectory, status=replace(trajectory.status, message=aim))
            # An attempt that came to the end is worth more than a finer one that did not.
            spent -= best.stats.gradients
            stats = replace(best.stats, error_gradients=spent)
            message = f"{_short_of(best, error)} With a smaller `rtol`: {aim}"
            return replace(best, stats=stats, status=Status("uncontrolled", message))
        if reached <= error:
            return trajectory
        if rtol <= finest:
            break
        best = trajectory
        # At crude tolerances the error may hardly fall, and all at once after that: no attempt goes
        # so far that it costs many times what is needed.
        factor = 0.5 * error / reached if np.isfinite(reached) else 0.0
        rtol = max(rtol * float(np.clip(factor, 0.03, 0.3)), finest)
    return replace(trajectory, status=Status("uncontrolled", _short_of(trajectory, error)))


def _short_of(trajectory: Trajectory, error: float) -> str:
    assert trajectory.error is not None
    reached = float(jnp.max(trajectory.error))
    found = (
        f"the error reported is {reached:.2g}" if np.isfinite(reached) else "the error is unknown"
    )
    return f"{found}; {error:.2g} was asked for."
