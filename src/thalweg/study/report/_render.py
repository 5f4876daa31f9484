"""From results to one HTML file."""

from pathlib import Path
from typing import Any

from ..results import Results, read_results
from ..stages import STAGES
from ..store import Store
from ..verdict import headlines
from ._citations import citations
from ._page import drawn, marked, page, written
from ._tables import clock_table, cost_table, end_table

REPORT_NAME = "report.html"


def write_report(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write a study's report from its store alone; returns its path.

    `out` is the file, by default `report.html` in the directory.

    One file that needs nothing else: style and charts are inside, nothing is fetched, and all text
    that came from outside is escaped. An unfinished study is reported as far as it has come.

    **Raises:** StoreError for a store that is missing, foreign or damaged.
    """
    directory = Path(directory)
    results = read_results(Store.open(directory))
    return written(render(results), Path(out) if out is not None else directory / REPORT_NAME)


def render(results: Results) -> str:
    """The whole page."""
    attributes = results.attributes
    return page(
        __package__ or "",
        "template.html.j2",
        name=attributes.get("name", "study"),
        facts=_facts(results),
        verdict=marked(results.verdict),
        troubles=_troubles(results),
        headlines=headlines(results.verdict),
        overview=_overview(results),
        figures=[
            # The first figure of a stage is where links to the stage lead.
            (stage.name if i == 0 else "", drawn(figure.chart), figure.caption)
            for stage in STAGES
            for i, figure in enumerate(stage.draws(results))
        ],
        end=end_table(results),
        remarks=[remark for stage in STAGES for remark in stage.remarks(results)],
        tables=[table for stage in STAGES for table in stage.tables(results)],
        clock=clock_table(results),
        cost=cost_table(results),
        attributes=attributes,
        versions=results.versions,
        citations=citations(results),
    )


def _overview(results: Results) -> dict[str, Any]:
    """Findings with a short form: a row for every run, a column for every topic."""
    short = [s for s in results.verdict if s.get("short")]
    topics = list(dict.fromkeys(s["topic"] for s in short))
    rows = []
    for run in dict.fromkeys(s["run"] for s in short):
        cells = {s["topic"]: s for s in short if s["run"] == run}
        subject = next(iter(cells.values()))["subject"]
        rows.append((subject, [cells.get(topic) for topic in topics]))
    return {"topics": topics, "rows": rows}


def _facts(results: Results) -> str:
    attributes = results.attributes
    parts = [
        f"{attributes.get('samples', '?')} samples of {attributes.get('data', 'unknown data')}",
        f"{int(attributes.get('parameters', 0)):,} parameters",
        str(attributes.get("dtype", "")),
        f"seed {attributes.get('seed')}",
        str(attributes.get("created", ""))[:10],
    ]
    return " · ".join(part for part in parts if part)


def _troubles(results: Results) -> list[str]:
    """What did not come to its end."""
    sentences = []
    for member in (*results.flows, *results.runs):
        kind = member.attributes.get("status_kind")
        if kind is None or not member.complete:
            sentences.append(f"{member.label} was not finished when this report was written.")
        elif kind != "completed":
            message = member.attributes.get("status_message", "")
            sentences.append(f"{member.label} {kind}: {message}")
    return sentences
