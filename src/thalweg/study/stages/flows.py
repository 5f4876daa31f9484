"""The stage that follows flows."""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ..._numbers import described, percent, significant
from ..._section import Counted, Positive, Section
from ...flows import Integration
from .._consistency import Sections
from .._needs import PRODUCTS, STATES, WIDTHS, Need, Sizes, flow_size, need
from ..plan import Plan, PlannedFlow
from ..results import Member, Results
from ..sentences import CLOSE, Sentence
from ..work import Work
from ._stage import Stage


class FlowsSection(Section):
    """`[flow]`: how far every flow is followed, how many times are saved, how accurately."""

    t1: Positive
    saves: Annotated[int, Field(ge=1, le=100_000)] = 40
    rtol: Positive | None = None
    atol: Positive | None = None
    max_steps: Counted = 1_000_000


class Flows(Stage):
    """Every flow that an optimizer discretises, with its error."""

    name = "flows"

    def carry_out(self, work: Work) -> None:
        plan = work.plan
        for position, flow in enumerate(plan.flows):
            path = f"flows/{flow.name}"
            run = Integration(
                flow.flow,
                plan.objective,
                plan.params,
                save_at=flow.times,
                rtol=plan.spec.rtol,
                atol=plan.spec.flow.atol,
                max_steps=plan.spec.flow.max_steps,
            )
            attributes = {"position": position, **_attributes(flow, run)}
            work.bring_to_end(path, flow.flow.name, run, attributes)
            if "moved" not in work.store.attributes_of(path):
                params = work.rows(path)["params"]
                moved = float(np.linalg.norm(params - params[:1], axis=1).max())
                work.store.annotate(path, {"moved": moved})

    def rows(self, plan: Plan) -> int:
        # Checkpoints hold the points, slopes and interpolants of two solutions with two solvers.
        return sum(len(flow.times) + 120 for flow in plan.flows)

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        state = STATES * flow_size(sizes, sections.first_order, sections["network"].kinks)
        yield need("flows", (state, WIDTHS), (sizes.gradient, PRODUCTS))

    def says(self, results: Results) -> Iterator[Sentence]:
        for flow in results.flows:
            yield _known(flow)


def _attributes(flow: PlannedFlow, run: Integration) -> dict[str, Any]:
    return {
        "kind": type(flow.flow).__name__,
        "label": flow.flow.name,
        "repr": described(flow.flow),
        "rtol": run.rtol,
        "atol": run.atol,
    }


def _known(flow: Member) -> Sentence:
    """How well a flow is known."""
    label, kind = flow.attributes["label"], flow.attributes["status_kind"]
    worst, moved = float(flow.array("error").max()), float(flow.attributes["moved"])
    numbers = {"error": worst, "moved": moved}
    text = (
        f"The {label} itself is known to within {significant(worst, 2)}"
        f" ({percent(worst / moved)} of the {significant(moved)} it moves)"
        if moved > 0
        else f"The {label} does not move; its error is {significant(worst, 2)}"
    )
    if kind != "completed":
        why = flow.attributes["status_message"]
        what = why if kind == "uncontrolled" else f"it ended early: {why}"
        return Sentence(f"{text}; {what}", "warning", numbers)
    fine = moved > 0 and worst / moved < CLOSE
    return Sentence(text + ".", "good" if fine else "warning", numbers)
