"""The tables of the report that are about all stages."""

import numpy as np

from ..._numbers import significant
from ..charts import Table
from ..results import Results
from ..stages import STAGES, Spent


def end_table(results: Results) -> Table:
    """Where every optimizer (a column) stands at its last time that its flow shares.

    Every number carries its error, or the reason why it has none.
    """
    columns = [_end(run, results) for run in results.runs]
    quantities = list(dict.fromkeys(name for column in columns for name in column))
    header = ["at the end", *(run.label for run in results.runs)]
    rows = [[name, *(column.get(name, "") for column in columns)] for name in quantities]
    return Table(header, rows)


def _end(run, results: Results) -> dict[str, str]:
    cells: dict[str, str] = {}
    for stage in STAGES:
        cells |= stage.cells(run, results)
    return cells


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
        "seconds",
        "ended",
    ]
    costs = [cost for stage in STAGES for cost in stage.costs(results)]
    rows = [_cost_row(spent) for spent in costs]
    totals = [-1 if spent.cost is None else spent.cost.total for spent in costs]
    whole = -1 if min(totals, default=0) < 0 else sum(totals)
    return Table(header, [*rows, ["everything", "", "", "", "", _count(whole), "", "", "", ""]])


def _cost_row(spent: Spent) -> list[str]:
    cost, took = spent.cost, "" if spent.seconds is None else significant(spent.seconds, 2)
    if cost is None:
        return [spent.what, *["unknown"] * 7, took, spent.ended]
    numbers = (
        cost.gradients,
        cost.error_gradients,
        cost.products,
        cost.total,
        cost.steps,
        cost.rejected,
    )
    return [spent.what, cost.solver, *map(_count, numbers), took, spent.ended]


def clock_table(results: Results) -> Table:
    """Which flow every optimizer discretises, and at which pace."""
    header = ["optimizer", "as given", "its flow", "time per step"]
    names = {flow.name: flow.attributes.get("repr", flow.label) for flow in results.flows}
    rows = [
        [
            run.label,
            str(run.attributes.get("repr", "")),
            str(names.get(str(run.attributes.get("flow")), "none is known")),
            significant(float(run.attributes.get("time_per_step", np.nan))),
        ]
        for run in results.runs
    ]
    return Table(header, rows)


def _count(number: int) -> str:
    return "unknown" if number < 0 else f"{number:,}"
