"""How a flow ended, and whether its end can be trusted."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._precision import jit
from .._trees import (
    tree_all_finite,
    tree_axpy,
    tree_dot,
    tree_dtype,
    tree_norm,
    tree_scale,
    tree_size,
)
from ..objectives import AbstractObjective
from ..results import Status
from ._base import Flow
from ._march import overgrown

# The largest error, as a part of the distance moved, that still says something about the flow.
_LARGEST_ERROR = 0.5


class Ahead(NamedTuple):
    """What lies ahead of a point of a flow.

    `far_out`: whether it is on its way to infinity; `finite`: whether the field is finite within
    the tolerance; `way`: how far its speed leads in as much time as has passed, or to where the
    field would vanish if it went on to fall as it does within the tolerance; `tolerance`: that of a
    step, as a distance over all parameters.
    """

    far_out: Bool[Array, ""]
    finite: Bool[Array, ""]
    way: Float[Array, ""]
    tolerance: Float[Array, ""]


@jit
def ahead(
    flow: Flow,
    objective: AbstractObjective,
    y: PyTree[Array],
    t: Float[Array, ""],
    rtol: float,
    atol: float,
) -> Ahead:
    """What lies ahead of `y`, at the price of two evaluations of the field."""
    tolerance = atol * jnp.sqrt(tree_size(y)) + rtol * tree_norm(y)
    field = flow.vector_field(t, y, objective)
    speed = tree_norm(field)
    direction = tree_scale(1 / jnp.where(speed > 0, speed, 1), field)
    later = flow.vector_field(t, tree_axpy(tolerance, direction, y), objective)
    finite = jnp.isfinite(speed) & tree_all_finite(later)
    fall = speed - tree_dot(direction, later)
    falls = fall > 0
    to_rest = jnp.where(falls, tolerance * speed / jnp.where(falls, fall, 1), jnp.inf)
    return Ahead(overgrown(flow.params(y)), finite, jnp.minimum(t * speed, to_rest), tolerance)


def stalled(ahead: Ahead, farthest: float, t: float) -> Status:
    """Why a solution got no farther than `t`, having been `farthest` from its start."""
    if bool(ahead.far_out):
        return Status("diverged", f"the solution grows without bound; left at t = {t:.6g}.", t)
    where = f"the step size fell to the resolution of time at t = {t:.6g}"
    if not bool(ahead.finite):
        return Status("diverged", f"{where}: the gradient stops being finite there.", t)
    way, tolerance = float(ahead.way), float(ahead.tolerance)
    if way > max(farthest, tolerance):
        return Status("diverged", f"{where}: the solution grows without bound there.", t)
    if way > tolerance:
        why = "the gradient changes too abruptly there for this solver"
    else:
        why = "until twice that time the solution moves by less than its tolerances"
    return Status("stopped", f"{where}: {why}.", t)


def controlled(
    params: PyTree, moved: float, error: float, advice: str = " Use a smaller `rtol`."
) -> Status:
    """Whether the error of a flow's last point is small against the way there.

    `advice` ends the message if it is not.
    """
    if moved == 0:
        return Status(message="the flow stands still: its start is a critical point.")
    rounding = 100 * float(tree_norm(params)) * float(jnp.finfo(tree_dtype(params)).eps)
    if error <= max(_LARGEST_ERROR * moved, rounding):
        return Status()
    fault = "the error is unknown"
    if np.isfinite(error):
        fault = (
            f"the error reported, {error:.2g}, is not small against the distance moved, {moved:.2g}"
        )
    return Status("uncontrolled", f"{fault}: the exact flow may lead elsewhere.{advice}")
