"""From results to one HTML file."""

import json
from pathlib import Path

from . import _figures as figures
from ._citations import citations
from ._page import drawn, marked, page, written
from ._results import Results, read_results
from ._tables import clock_table, cost_table, end_table, kernel_table

REPORT_NAME = "report.html"


def write_report(directory: str | Path) -> Path:
    """Write `report.html` into a study's directory, from its store alone; returns its path.

    One file that needs nothing else: style and charts are inside, nothing is fetched, and all text
    that came from outside is escaped. An unfinished study is reported as far as it has come.

    **Raises:** StoreError for a store that is missing, foreign or damaged.
    """
    directory = Path(directory)
    return written(render(read_results(directory)), directory / REPORT_NAME)


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
        loss=drawn(figures.loss_chart(results)),
        distance=drawn(figures.distance_chart(results)),
        relative=drawn(figures.relative_chart(results)),
        sharpness=[drawn(chart) for chart in figures.sharpness_charts(results)],
        smallest=drawn(figures.smallest_chart(results)),
        kernel=drawn(figures.kernel_chart(results)),
        drift=drawn(figures.drift_chart(results)),
        rates=kernel_table(results),
        kernel_note=_kernel_note(results),
        end=end_table(results),
        certificates=_certificates(results),
        clock=clock_table(results),
        cost=cost_table(results),
        attributes=attributes,
        versions=results.versions,
        citations=citations(results),
    )


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


_KERNELS = {
    "all": "all pairs of outputs",
    "each": "every output with itself",
    "mean": "the mean over outputs, for all of them",
}


def _kernel_note(results: Results) -> str:
    """Which kernel it was."""
    found = next(iter(results.kernel.values()), None)
    if found is None:
        return ""
    condition = float(found.attributes.get("condition", float("inf")))
    spread = f"{condition:.3g}" if condition < float("inf") else "infinite (singular kernel)"
    return (
        f"The kernel is that of {_KERNELS.get(str(found.attributes.get('outputs')), 'the network')}"
        f" at the start; its condition is {spread}, its alignment with the targets"
        f" {float(found.attributes.get('alignment', float('nan'))):.3g}."
    )


def _troubles(results: Results) -> list[str]:
    """What did not come to its end."""
    sentences = []
    for member in (*results.flows, *results.optimizers):
        kind = member.attributes.get("status_kind")
        if kind is None or not member.complete:
            sentences.append(f"{member.label} was not finished when this report was written.")
        elif kind != "completed":
            message = member.attributes.get("status_message", "")
            sentences.append(f"{member.label} {kind}: {message}")
    return sentences
