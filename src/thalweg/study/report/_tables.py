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
    """Where every optimizer (a column) stands at its last time that its flow shares."""
    columns = [_end_column(member, results) for member in results.optimizers]
    quantities = list(columns[0]) if columns else []
    header = ["at the end", *(member.label for member in results.optimizers)]
    return Table(header, [[name, *(column[name] for column in columns)] for name in quantities])


def _end_column(member: Member, results: Results) -> dict[str, str]:
    loss = member.numbers("loss")
    gap, seen = results.comparisons.get(member.name), results.curvature.get(member.name)
    cells = {"loss": significant(loss[-1], 6) if loss else "none"}
    compared = gap is not None and bool(gap.numbers("time"))
    last = {name: gap.numbers(name)[-1] for name in _GAP} if gap is not None and compared else None
    if last is None:
        cells |= dict.fromkeys(("flow time t", *_COMPARED), "not compared")
    else:
        travelled = max(gap.numbers("moved")) if gap is not None else 0.0
        values = (
            with_error(last["distance"], last["distance_error"]),
            percent(last["distance"] / travelled) if travelled > 0 else "flow does not move",
            with_error(last["loss_difference"], last["loss_error"]),
            with_error(last["prediction_distance"], last["prediction_error"]),
        )
        cells = {"flow time t": significant(last["time"]), **cells}
        cells |= dict(zip(_COMPARED, values, strict=True))
    if seen is None or not seen.numbers("time"):
        cells |= dict.fromkeys(_MEASURED, "not measured")
    else:
        step = float(member.attributes["step_size"])
        top, radius = _last(seen, "largest"), _last(seen, "largest_residual")
        values = (
            with_error(top, radius),
            with_error(top * step, radius * step),
            with_error(_last(seen, "smallest"), _last(seen, "smallest_residual")),
        )
        cells |= dict(zip(_MEASURED, values, strict=True))
    cells |= _expected(member, results)
    return cells | {"gradients": _count(member.attributes.get("gradients"))}


def _expected(member: Member, results: Results) -> dict[str, str]:
    """What the law predicts, and what is certain."""
    gap, sure = results.comparisons.get(member.name), results.certificates.get(member.name)
    predicted = [] if gap is None else gap.numbers("predicted")
    cells = {"distance predicted": "no law for kinks or not asked for"}
    if gap is not None and predicted and np.isfinite(predicted[-1]):
        error = gap.numbers("predicted_error")[-1]
        cells["distance predicted"] = with_error(predicted[-1], error)
    cells["distance at most"] = "no certificate"
    bound = [] if sure is None else sure.numbers("bound")
    if sure is not None and bound:
        proved = "proved" if sure.attributes.get("proved") else "not proved"
        value = significant(bound[-1]) if np.isfinite(bound[-1]) else "no bound"
        cells["distance at most"] = f"{value} ({proved})" if np.isfinite(bound[-1]) else value
    return cells


_COMPARED = (
    "distance to flow",
    "relative to distance travelled",
    "loss − flow's",
    "predictions apart",
)
_MEASURED = ("largest eigenvalue", "largest eigenvalue × step", "smallest eigenvalue")
_GAP = (
    "time",
    "distance",
    "distance_error",
    "loss_difference",
    "loss_error",
    "prediction_distance",
    "prediction_error",
)


def kernel_table(results: Results) -> Table:
    """What the tangent kernel at the start predicted, and what happened."""
    header = [
        "optimizer",
        "loss at the end",
        "predicted",
        "kernel moved",
        "how the loss fell",
        "in the long run, by theory",
    ]
    rows = []
    for member in results.optimizers:
        seen = results.kernel.get(member.name)
        if seen is None:
            continue
        predicted, drift = seen.numbers("predicted_loss")[-1], seen.numbers("drift")[-1]
        rows.append(
            [
                member.label,
                significant(member.numbers("loss")[-1], 6),
                significant(predicted, 6) if np.isfinite(predicted) else "diverged",
                percent(drift),
                _fall(seen),
                _law(seen),
            ]
        )
    return Table(header, rows)


def _fall(seen: Member) -> str:
    """How the loss fell, without the reasons, which the verdict has."""
    kind = seen.attributes.get("rate_kind", "")
    return str(kind) if kind == "neither" else str(seen.attributes.get("rate", ""))


def _law(seen: Member) -> str:
    """What the slowest mode will do, and how little of that is within a run too short for it."""
    law = str(seen.attributes.get("predicted_rate", ""))
    exponent = float(seen.attributes.get("predicted_exponent", np.nan))
    fallen = -np.expm1(-exponent * seen.numbers("time")[-1])
    short = 0 < fallen < 0.5
    return f"{law}; in this run that is a fall by {percent(fallen)}" if short else law


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
    laws = list(results.laws.values())
    for member in (*results.flows, *laws, *results.optimizers):
        seen = results.curvature.get(member.name) if member not in laws else None
        attributes = member.attributes
        flow = member in results.flows or member in laws
        rows.append(
            [
                f"law, {member.name}" if member in laws else member.label,
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
