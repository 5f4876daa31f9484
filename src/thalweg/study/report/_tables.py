"""The tables of the report. Every number carries its error, or the reason why it has none."""

from dataclasses import dataclass

import numpy as np

from ..._numbers import percent, significant, with_error
from .._cost import Cost
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
    return cells | {
        "gradients": "unknown" if member.cost is None else _count(member.cost.gradients)
    }


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
    rate, kind = str(seen.attributes.get("rate", "")), seen.attributes.get("rate_kind", "")
    return rate.partition(":")[0] if kind in ("neither", "not judged") else rate


def _law(seen: Member) -> str:
    """What the slowest mode will do, and how little of that is within a run too short for it."""
    law = str(seen.attributes.get("predicted_rate", ""))
    exponent = float(seen.attributes.get("predicted_exponent", np.nan))
    fallen = -np.expm1(-exponent * seen.numbers("time")[-1])
    short = 0 < fallen < 0.5
    return f"{law}; in this run that is a fall by {percent(fallen)}" if short else law


def cost_table(results: Results) -> Table:
    """What every stage cost, as the store records it, and all of them together."""
    header = [
        "what",
        "method",
        "gradients",
        "for its error",
        "Hessian products",
        "altogether",
        "steps",
        "rejected",
        "ended",
    ]
    labels = {member.name: member.label for member in (*results.flows, *results.optimizers)}
    costs = [
        (f"{what}{labels.get(member.name, member.name)}", member.cost, _ended(member))
        for what, members in (
            ("", results.flows),
            ("", results.optimizers),
            ("law, ", results.laws.values()),
            ("certificate, ", results.certificates.values()),
            ("comparison, ", results.comparisons.values()),
            ("curvature, ", results.curvature.values()),
            ("kernel drift, ", results.kernel.values()),
        )
        for member in members
    ]
    if results.made_kernel is not None:
        costs.append(("kernel at the start", results.made_kernel, "completed"))
    rows = [_cost_row(what, cost, ended) for what, cost, ended in costs]
    totals = [-1 if cost is None else cost.total for _, cost, _ in costs]
    whole = -1 if min(totals, default=0) < 0 else sum(totals)
    return Table(header, [*rows, ["everything", "", "", "", "", _count(whole), "", "", ""]])


def _cost_row(what: str, cost: Cost | None, ended: str) -> list[str]:
    if cost is None:
        return [what, *["unknown"] * 7, ended]
    numbers = (
        cost.gradients,
        cost.error_gradients,
        cost.products,
        cost.total,
        cost.steps,
        cost.rejected,
    )
    return [what, cost.solver, *map(_count, numbers), ended]


def _ended(member: Member) -> str:
    """How a stage ended, or that it has not."""
    # That of a kernel is of what it predicts.
    kind = "completed" if "rate" in member.attributes else member.attributes.get("status_kind")
    return str(kind or "completed") if member.complete else "under way"


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


def _count(number: int) -> str:
    return "unknown" if number < 0 else f"{number:,}"
