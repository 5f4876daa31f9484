"""Lines of charts, made of parts of a store."""

import numpy as np

from .charts import STYLES, Line
from .results import Member, Results


def line_of(part: Member, column: str, results: Results, quiet: bool = False) -> Line:
    """A column of a flow or a run against time."""
    return Line(
        part.label,
        part.numbers("time"),
        part.numbers(column),
        colour_of(part, results),
        quiet=quiet,
        outside=outside(part),
    )


def colour_of(part: Member, results: Results) -> int:
    """A run has a style of its own; a flow the style of its first run."""
    for i, run in enumerate(results.runs):
        if part is run or run.attributes.get("flow") == part.name:
            return i % STYLES
    return STYLES - 1


def outside(part: Member) -> bool:
    """Whether a line is not to set the axes: that of a run that diverged."""
    return part.attributes.get("status_kind") == "diverged"


def shown(part: Member, column: str) -> list[tuple[float, float]]:
    """Times and values that a logarithmic axis has room for."""
    values = part.numbers(column)
    pairs = zip(part.numbers("time"), values, strict=True) if values else ()
    return [(t, v) for t, v in pairs if np.isfinite(v) and v > 0]
