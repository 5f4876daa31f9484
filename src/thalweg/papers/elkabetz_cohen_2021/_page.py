"""One page that tells all: figures like the paper's, and tables against its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._numbers import percent, significant, with_error
from ...study.report import Chart, Line, Table, drawn, marked, page, written
from ...study.sentences import Sentence
from ._comparison import FLOW, Comparison
from ._findings import name
from ._published import ITERATIONS, PUBLISHED

_ITERATION = "iteration of η"


def write_page(
    comparisons: list[Comparison], found: list[Sentence], titles: Mapping[str, str], path: Path
) -> Path:
    """Write the page; it needs nothing else, and links to the reports of the studies."""
    sentences = marked(s.as_dict() for s in found)
    html = page(
        __package__ or "",
        "page.html.j2",
        findings=sentences,
        networks=[
            _network(titles[network], [c for c in comparisons if c.network == network])
            for network in titles
            if any(c.network == network for c in comparisons)
        ],
    )
    return written(html, path)


def _network(title: str, members: list[Comparison]) -> dict[str, Any]:
    return {
        "title": title,
        "precisions": [
            {
                "name": c.precision,
                "loss": drawn(_loss(c)),
                "distance": drawn(_distance(c)),
                "report": f"{c.network}-{c.precision}/report.html",
            }
            for c in members
        ],
        "published": _against_published(members),
        "quotients": _quotients(members),
        "flow": _against_flow(members),
        "sides": _sides(members),
    }


def _loss(c: Comparison) -> Chart:
    at = c.iterations.tolist()
    last = c.ratios[-2]
    lines = [
        Line("flow", at, c.flow_loss.tolist(), 5, quiet=True),
        Line("η", at, c.loss[1].tolist(), 0),
        Line(name(last), at, c.loss[last].tolist(), 1),
    ]
    return Chart(f"Training loss, {c.precision}", _ITERATION, "loss", lines)


def _distance(c: Comparison) -> Chart:
    lines = [Line("distance from the start", *_positive(c, c.travelled), 5, quiet=True)]
    for place, ratio in enumerate(c.ratios):
        gap = c.distance[ratio]
        bar = c.flow_error if ratio == FLOW else np.zeros_like(gap)
        at, values = _positive(c, gap)
        low, high = (gap - bar)[gap > 0].tolist(), (gap + bar)[gap > 0].tolist()
        lines.append(Line(f"η to {name(ratio)}", at, values, place, low, high))
    title = f"Distance in weight space, {c.precision}"
    return Chart(title, _ITERATION, "distance", lines, log_y=True)


def _positive(c: Comparison, values: np.ndarray) -> tuple[list[float], list[float]]:
    """What a logarithmic axis has room for."""
    keep = values > 0
    return c.iterations[keep].tolist(), values[keep].tolist()


def _against_published(members: list[Comparison]) -> Table | None:
    """The published numbers, and ours at the same iterations."""
    published = PUBLISHED.get(members[0].network)
    if published is None or not members[0].published_protocol:
        return None
    shown = [k for k in ITERATIONS if k in members[0].iterations]
    header = ["", *(f"{k:,}" for k in shown)]
    rows = []

    def add(what: str, theirs: tuple[float, ...], ours: list[np.ndarray]) -> None:
        rows.append([f"{what}, published", *(f"{v:.4g}" for v in theirs[: len(shown)])])
        for c, values in zip(members, ours, strict=True):
            at = [int(np.flatnonzero(c.iterations == k)[0]) for k in shown]
            rows.append([f"{what}, {c.precision}", *(significant(float(values[i])) for i in at)])

    add("loss", published.loss, [c.loss[1] for c in members])
    add("from the start", published.travelled, [c.travelled for c in members])
    for ratio in members[0].ratios[:-1]:
        if ratio in published.distance:
            ours = [c.distance[ratio] for c in members if ratio in c.distance]
            add(f"η to {name(ratio)}", published.distance[ratio], ours)
    return Table(header, rows) if shown else None


def _quotients(members: list[Comparison]) -> Table:
    """The ratio test, at the end."""
    ratios = members[0].ratios
    header = [f"distance / distance to {name(ratios[0])}", *(f"η to {name(r)}" for r in ratios)]
    theory = ["first order", *(significant(members[0].in_theory(r)) for r in ratios)]
    rows = [
        [c.precision, *(significant(float(c.quotient(r)[-1])) for r in ratios)]
        for c in members
        if c.ratios == ratios
    ]
    return Table(header, [theory, *rows])


def _against_flow(members: list[Comparison]) -> Table:
    """Every run beside the true flow, at the end."""
    header = ["at the end", "distance to the flow", "of the distance travelled", "gradients"]
    rows = []
    for c in members:
        bar, travelled = float(c.flow_error[-1]), float(c.travelled[-1])
        for ratio in (1, *c.ratios[:-1]):
            gap = float((c.distance[FLOW] if ratio == 1 else c.proxy[ratio])[-1])
            who = f"{name(ratio)}, {c.precision}"
            cost = f"{c.gradients[ratio]:,}"
            rows.append([who, with_error(gap, bar), percent(gap / travelled), cost])
        cost = f"{c.gradients[FLOW]:,} + {c.flow_error_gradients:,} for its error"
        if c.own_flow:
            flow = f"flow, {c.precision}"
            rows.append([flow, significant(bar, 2), percent(bar / travelled), cost])
        if c.predicted is not None:
            rows.append(
                [f"η, {c.precision}, predicted", significant(float(c.predicted[-1])), "", ""]
            )
    return Table(header, rows)


def _sides(members: list[Comparison]) -> Table | None:
    """Activation flips, and pairs on other sides."""
    if not members[0].flips:
        return None
    header = [
        "activations",
        "flips between saved times, all together",
        "pairs apart from η at the end",
        "parted from η at",
    ]
    rows = []
    for c in members:
        for ratio in sorted(c.flips):
            parting = c.parting.get(ratio)
            where = ""
            if parting is not None:
                where = (
                    f"iteration {c.iterations[parting.look]:,.0f}: sample {parting.sample}, layer"
                    f" {parting.layer}, unit {parting.unit}"
                    f" ({significant(parting.depths[0], 2)} and"
                    f" {significant(parting.depths[1], 2)})"
                )
            apart = f"{c.apart[ratio][-1]:.0f}" if ratio in c.apart else ""
            flips = f"{c.flips[ratio].sum():,.0f}"
            rows.append([f"{name(ratio)}, {c.precision}", flips, apart, where])
    return Table(header, rows)
