"""A study in short, for programs."""

from pathlib import Path
from typing import Any

from .results import Results
from .stages import STAGES
from .store import STORE_NAME
from .verdict import headlines


def summary(results: Results, report: Path) -> dict[str, Any]:
    """Verdict, paths and costs as plain values; a cost that is not known is -1."""
    costs = {
        spent.what: -1 if spent.cost is None else spent.cost.total
        for stage in STAGES
        for spent in stage.costs(results)
    }
    return {
        "name": results.attributes["name"],
        "headlines": headlines(results.verdict),
        "verdict": results.verdict,
        "status": {
            part.name: part.attributes.get("status_kind", "under way")
            for part in (*results.flows, *results.runs)
        },
        "report": str(report),
        "store": str(report.parent / STORE_NAME),
        "gradients": costs,
        "seconds": dict(results.seconds),
    }


def troubled(results: Results) -> bool:
    """Whether a flow or a run did not reach its end, or is not known well enough."""
    ended = (part.attributes.get("status_kind") for part in (*results.flows, *results.runs))
    return any(kind != "completed" for kind in ended)
