"""From results to one HTML file."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import _figures as figures
from ._chart import Chart
from ._citations import citations
from ._results import Results, read_results
from ._tables import clock_table, cost_table, end_table

REPORT_NAME = "report.html"
_MARKS = {"good": "holds", "notice": "note", "warning": "look"}


def write_report(directory: str | Path) -> Path:
    """Write `report.html` into a study's directory, from its store alone; returns its path.

    One file that needs nothing else: style and charts are inside, nothing is fetched, and all text
    that came from outside is escaped. An unfinished study is reported as far as it has come.

    **Raises:** StoreError for a store that is missing, foreign or damaged.
    """
    directory = Path(directory)
    html = render(read_results(directory))
    # Written beside and moved into place: a report is never half a report.
    draft = directory / f".{REPORT_NAME}.{os.getpid()}"
    draft.write_text(html, encoding="utf-8")
    path = directory / REPORT_NAME
    draft.replace(path)
    return path


def render(results: Results) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("thalweg.study.report")
    template = environment.from_string(folder.joinpath("template.html.j2").read_text("utf-8"))
    attributes = results.attributes
    return template.render(
        # Our own style sheet and charts; every foreign text inside a chart is escaped there.
        style=Markup(folder.joinpath("style.css").read_text("utf-8")),
        name=attributes.get("name", "study"),
        facts=_facts(results),
        verdict=[{**s, "mark": _MARKS.get(s["level"], "note")} for s in results.verdict],
        troubles=_troubles(results),
        loss=_drawn(figures.loss_chart(results)),
        distance=_drawn(figures.distance_chart(results)),
        relative=_drawn(figures.relative_chart(results)),
        sharpness=[_drawn(chart) for chart in figures.sharpness_charts(results)],
        smallest=_drawn(figures.smallest_chart(results)),
        end=end_table(results),
        certificates=_certificates(results),
        clock=clock_table(results),
        cost=cost_table(results),
        attributes=attributes,
        versions=results.versions,
        citations=citations(results),
    )


def _drawn(chart: Chart) -> dict[str, Any]:
    """A chart with its legend; `empty` when there is nothing to draw."""
    legend = [(line.label, line.colour, line.quiet) for line in chart.lines]
    empty = not any(line.y for line in chart.lines)
    return {
        "title": chart.title,
        "svg": Markup(chart.svg()) if not empty else Markup(""),
        "legend": legend,
        "empty": empty,
    }


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


def _certificates(results: Results) -> list[str]:
    """What each bound rests on, and what limits it."""
    sentences = []
    for member in results.optimizers:
        found = results.certificates.get(member.name)
        if found is None:
            continue
        grounds = json.loads(str(found.attributes.get("hypotheses", "[]")))
        rests = "; ".join(f"{statement} ({how})" for statement, how in grounds)
        limit = found.attributes.get("limit", "")
        sentences.append(f"The bound for {member.label} rests on: {rests}. {limit}")
    return sentences


def _troubles(results: Results) -> list[str]:
    """What did not come to its end."""
    sentences = []
    for member in (*results.flows, *results.optimizers):
        kind = member.attributes.get("status_kind")
        if kind is None:
            sentences.append(f"{member.label} was not finished when this report was written.")
        elif kind != "completed":
            message = member.attributes.get("status_message", "")
            sentences.append(f"{member.label} {kind}: {message}")
    return sentences
