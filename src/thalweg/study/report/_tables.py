"""The tables of the report. Every number carries its error, or the reason why it has none."""

from dataclasses import dataclass

import numpy as np

from ..numbers import percent, significant, with_error
from ._results import Member, Results


@dataclass(frozen=True)
class Table:
    """Rows below a header; the first cell of a row names it."""

    header: list[str]
    rows: list[list[str]]


def end_table(results: Results) -> Table:
    """Where every optimizer stands at its last time that its flow shares."""
    header = [
        "optimizer",
        "t",
        "loss",
        "loss − flow's",
        "distance to flow",
        "relative",
        "predictions apart",
        "largest eigenvalue × step",
        "smallest eigenvalue",
        "gradients",
    ]
    return Table(header, [_end_row(member, results) for member in results.optimizers])


def _end_row(member: Member, results: Results) -> list[str]:
    loss = member.numbers("loss")
    gap, seen = results.comparisons.get(member.name), results.curvature.get(member.name)
    cells = [member.label, *["no common time"] * 1, significant(loss[-1], 6) if loss else "none"]
    if gap is None or not gap.numbers("time"):
        cells += ["not compared"] * 4
    else:
        last = {name: gap.numbers(name)[-1] for name in _GAP}
        cells[1] = significant(last["time"])
        moved = last["moved"]
        cells += [
            with_error(last["loss_difference"], last["loss_error"]),
            with_error(last["distance"], last["distance_error"]),
            percent(last["distance"] / moved) if moved > 0 else "flow has not moved",
            with_error(last["prediction_distance"], last["prediction_error"]),
        ]
    if seen is None or not seen.numbers("time"):
        cells += ["not measured"] * 2
    else:
        step = float(member.attributes["step_size"])
        cells += [
            with_error(_last(seen, "largest") * step, _last(seen, "largest_residual") * step),
            with_error(_last(seen, "smallest"), _last(seen, "smallest_residual")),
        ]
    return [*cells, _count(member.attributes.get("gradients"))]


_GAP = (
    "time",
    "moved",
    "distance",
    "distance_error",
    "loss_difference",
    "loss_error",
    "prediction_distance",
    "prediction_error",
)


def cost_table(results: Results) -> Table:
    """What everything cost, in gradient-equivalents."""
    header = [
        "what",
        "method",
        "gradients",
        "error estimate",
        "steps",
        "rejected",
        "Hessian products",
        "ended",
    ]
    rows = []
    for member in (*results.flows, *results.optimizers):
        seen = results.curvature.get(member.name)
        attributes = member.attributes
        flow = member in results.flows
        rows.append(
            [
                member.label,
                str(attributes.get("solver", "unknown")),
                _count(attributes.get("gradients")),
                _count(attributes.get("error_gradients")) if flow else "none: its steps are exact",
                _count(attributes.get("steps")),
                _count(attributes.get("rejected")) if flow else "0",
                "0" if seen is None else _count(seen.attributes.get("products")),
                str(attributes.get("status_kind", "unknown")),
            ]
        )
    return Table(header, rows)


def clock_table(results: Results) -> Table:
    """Which flow every optimizer discretises, and at which pace."""
    header = ["optimizer", "as given", "its flow", "time per step"]
    names = {flow.name: flow.attributes.get("repr", flow.label) for flow in results.flows}
    rows = [
        [
            member.label,
            str(member.attributes.get("repr", "")),
            str(names.get(str(member.attributes.get("flow")), "none")),
            significant(float(member.attributes.get("time_per_step", np.nan))),
        ]
        for member in results.optimizers
    ]
    return Table(header, rows)


def _last(member: Member, name: str) -> float:
    column = member.column(name)
    return float("nan") if column is None else float(column.reshape(len(column), -1)[-1, 0])


def _count(value: object) -> str:
    if value is None:
        return "unknown"
    number = int(value)  # pyright: ignore[reportArgumentType]
    return "unknown for this solver" if number < 0 else f"{number:,}"
