"""The stage that runs optimizers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._numbers import significant
from ...optimizers import ClassicalOptimizer, Descent
from .._consistency import Sections
from .._needs import PRODUCTS, WIDTHS, Need, Sizes, need
from ..charts import Chart, Figure
from ..lines import line_of
from ..plan import Plan, PlannedRun
from ..results import Member, Results
from ..work import Work
from ._stage import Stage

# Vectors of an optimizer.
_DESCENT = 8


class Optimizers(Stage):
    """The runs of all optimizers."""

    name = "optimizers"

    def carry_out(self, work: Work) -> None:
        plan = work.plan
        for position, planned in enumerate(plan.runs):
            descent = Descent(
                planned.optimizer, plan.objective, plan.params, save_steps=planned.save_steps
            )
            attributes = {"position": position, **_attributes(planned)}
            work.bring_to_end(f"optimizers/{planned.name}", planned.name, descent, attributes)

    def rows(self, plan: Plan) -> int:
        return sum(len(run.save_steps) for run in plan.runs)

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        yield need("optimizers", (_DESCENT * sizes.vector, WIDTHS), (sizes.gradient, PRODUCTS))

    def draws(self, results: Results) -> Iterator[Figure]:
        lines = [line_of(flow, "loss", results, quiet=True) for flow in results.flows]
        lines += [line_of(run, "loss", results) for run in results.runs]
        yield Figure(
            Chart("Loss", "flow time t", "loss", lines).with_log_where_it_helps(),
            "Loss of every optimizer (strong lines) and of the flow that it discretises (faint),"
            " against flow time. Losses of optimizers are exact up to round-off; those of flows"
            " have the error bars of the table below.",
        )

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        loss = run.numbers("loss")
        gradients = -1 if run.cost is None else run.cost.gradients
        return {
            "loss": significant(loss[-1], 6) if loss else "none",
            "gradients": "unknown" if gradients < 0 else f"{gradients:,}",
        }


def _attributes(planned: PlannedRun) -> dict[str, Any]:
    optimizer = planned.optimizer
    attributes = {
        "kind": type(optimizer).__name__,
        "label": planned.declared.label,
        "repr": planned.declared.written,
        "time_per_step": optimizer.time_per_step,
    }
    if planned.flow is not None:
        attributes["flow"] = planned.flow
    if isinstance(optimizer, ClassicalOptimizer):
        attributes["step_size"] = float(np.asarray(optimizer.step_size))
        # On a quadratic mode, the largest stable eigenvalue x step size at the last step.
        attributes["stability_limit"] = optimizer.stability_limit(int(planned.save_steps[-1]))
    return attributes
