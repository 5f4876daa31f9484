"""The stage that predicts distances to the flow by the first-order law."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..._section import Section
from ..._trees import tree_norm
from ...closeness._error_flow import ErrorFlow, Extended, error_flow
from ...flows import Integration
from ...optimizers import GradientDescent
from .._consistency import Sections
from .._needs import PRODUCTS, ROWS, STATES, WIDTHS, Need, Sizes, flow_size, need
from ..plan import Plan, PlannedRun
from ..work import Work
from ._stage import Stage

# The law is of first order; finer tolerances would not make it truer.
_RTOL = 1e-5
# Copies of saved rows while a law, which has two vectors in a row, is read.
_READ = 4


class ClosenessSection(Section):
    """`[closeness]`: beside the measured distance, the predicted one and a certificate."""

    predict: bool = True
    certify: bool = True


class Laws(Stage):
    """Flows with their first-order errors, for networks without kinks."""

    name = "laws"

    def carry_out(self, work: Work) -> None:
        for position, (name, law) in enumerate(_planned(work.plan).items()):
            flow = law.dynamics
            assert isinstance(flow, ErrorFlow)
            work.bring_to_end(
                f"laws/{name}",
                f"predicted distance, {name}",
                law,
                {"position": position, "optimizer": name},
                price=flow.price,
            )

    def rows(self, plan: Plan) -> int:
        # Flow and error.
        return 2 * sum(len(run.times) for run in plan.runs) if plan.spec.closeness.predict else 0

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        kinks = sections["network"].kinks
        if not sections.sound("flow", "closeness") or kinks or not sections["closeness"].predict:
            return
        # A law is a flow in twice as many dimensions, and followed as such.
        state = STATES * flow_size(sizes, sections.first_order, kinks, copies=2)
        rows = _READ * 2 * (sections["flow"].saves + 1) * sizes.vector
        product = (sizes.product, PRODUCTS)
        yield need("predicted distances", (state, WIDTHS), product, (rows, ROWS))

    def titled(self, part: str) -> str:
        return f"law, {part}"


def predicted_distances(work: Work, planned: PlannedRun, rows: int) -> dict[str, np.ndarray]:
    """What the law says at the saved times, NaN beyond its last, and its error bar."""
    plan, path = work.plan, f"laws/{_law_of(work.plan, planned)}"
    if not work.store.has(path):
        return {}
    _, unravel = ravel_pytree((plan.params, plan.params))
    stored = work.rows(path)
    known = min(len(stored["time"]), rows)
    flat = jnp.asarray(stored["params"][:known])
    rate = jax.vmap(lambda row: tree_norm(unravel(row)[1]))(flat)
    step, more = planned.optimizer.time_per_step, np.full(rows - known, np.nan)
    return {
        "predicted": np.append(step * np.asarray(rate), more),
        "predicted_error": np.append(step * stored["error"][:known], more),
    }


def _planned(plan: Plan) -> dict[str, Integration]:
    """The laws by the first run that each is for."""
    if not plan.spec.closeness.predict or plan.objective.kinks(plan.params).exist:
        return {}
    lawful = [run for run in plan.runs if run.flow is not None and _law_of(plan, run) == run.name]
    return {run.name: _law(plan, run) for run in lawful if _has_law(run)}


def _has_law(planned: PlannedRun) -> bool:
    try:
        planned.optimizer.error_source(1.0)
    except ValueError:
        return False
    return True


def _law_of(plan: Plan, planned: PlannedRun) -> str:
    """The first run with the same law: that of gradient descent is in proportion to the step."""

    def same(run: PlannedRun) -> bool:
        alike = all(isinstance(r.optimizer, GradientDescent) for r in (run, planned))
        return (
            alike
            and len(run.times) == len(planned.times)
            and np.allclose(run.times, planned.times, rtol=1e-12, atol=0)
        )

    return next(run.name for run in plan.runs if run is planned or same(run))


def _law(plan: Plan, planned: PlannedRun) -> Integration:
    return Integration(
        error_flow(planned.optimizer, 1),
        Extended(plan.objective),
        (plan.params, jax.tree.map(jnp.zeros_like, plan.params)),
        save_at=planned.times,
        rtol=max(_RTOL, plan.spec.rtol),
        max_steps=plan.spec.flow.max_steps,
    )
