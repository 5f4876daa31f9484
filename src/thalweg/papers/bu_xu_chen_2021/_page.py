"""One page that tells all: figures like the paper's, and tables against its numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from ..._numbers import percent, significant
from ...study.report import Chart, Line, Table, drawn, marked, page, written
from ...study.sentences import Sentence
from ._curves import Curve, Group
from ._findings import law
from ._published import AT


def write_page(groups: list[Group], found: list[Sentence], path: Path) -> Path:
    """Write the page; it needs nothing else."""
    settings = {g.setting.name: g.setting for g in groups}
    html = page(
        __package__ or "",
        "page.html.j2",
        findings=marked(s.as_dict() for s in found),
        settings=[
            {
                "name": name,
                "title": setting.title,
                **_lengths([g for g in groups if g.setting.name == name]),
                "experiments": [_experiment(g) for g in groups if g.setting.name == name],
            }
            for name, setting in settings.items()
        ],
    )
    return written(html, path)


def _lengths(groups: list[Group]) -> dict[str, str]:
    """Step sizes of a setting, in the paper's terms, and how long its runs are."""
    protocol, usual = groups[0].setting.protocol, type(groups[0].setting)().protocol
    # The paper's loss is twice ours.
    factor = 1.0 if groups[0].setting.has_limit else 0.5
    found = {g.by_width: f"{factor * g.curves[0].step_size:.4g}" for g in groups}
    steps = [f"{found[by_width]} {'by width' if by_width else 'by epoch'}" for by_width in found]
    length = f"{protocol.epochs:,} epochs"
    if protocol.epochs != usual.epochs:
        length += f" instead of {usual.epochs:,}"
    return {
        "step_sizes": ", ".join(dict.fromkeys(steps)),
        "length": f"By epoch: {length}; by width: {protocol.widths_epochs:,}.",
    }


def _captions(group: Group) -> list[str]:
    """What the lines of both figures are."""
    if group.by_width and not group.setting.has_limit:
        return ["Thin: published, with a band between the least and the largest of ten starts.", ""]
    if group.by_width:
        return ["", "The largest over all epochs."]
    if group.setting.has_limit:
        return [
            "Thin: what the tangent kernel at the start predicts.",
            "Of the norms of the prediction error, relative to that at the first epoch.",
        ]
    return ["", ""]


def _experiment(group: Group) -> dict[str, Any]:
    charts = [_losses_by_width(group)] if group.by_width else [_losses(group)]
    if group.setting.has_limit:
        charts.append(_gaps_by_width(group) if group.by_width else _gaps(group))
    else:
        charts.append(_drift_by_width(group) if group.by_width else _drift(group))
    return {
        "title": group.title,
        "by_width": group.by_width,
        "charts": [drawn(chart) for chart in charts],
        "captions": _captions(group),
        "starts": any(_has_starts(curve) for curve in group.curves),
        "losses": _width_table(group) if group.by_width else _epoch_table(group),
        "rates": None if group.by_width else _rates(group),
    }


def _losses(group: Group) -> Chart:
    """By epoch, as in the paper: both axes logarithmic for Nesterov's method."""
    lines = []
    for place, curve in enumerate(group.curves):
        at = curve.epochs.tolist()
        if group.setting.has_limit:
            lines.append(Line("", at, curve.predicted["start"].tolist(), place, quiet=True))
        lines.append(Line(curve.run.method.label, at, curve.loss.tolist(), place))
    title = "Loss, and as predicted" if group.setting.has_limit else "Loss"
    return Chart(title, "epoch", "mean squared error", lines, log_y=True, log_x=group.logarithmic)


def _gaps(group: Group) -> Chart:
    """Between predicted and real errors."""
    lines = []
    for place, curve in enumerate(group.curves):
        norms = np.sqrt(curve.loss)
        gap = np.abs(np.sqrt(curve.predicted["start"]) - norms) / norms[0]
        lines.append(Line(curve.run.method.label, *_positive(curve.epochs, gap), place))
    title = "How far the prediction is off"
    return Chart(title, "epoch", "difference of errors", lines, log_y=True)


def _drift(group: Group) -> Chart:
    lines = [
        Line(c.run.method.label, *_positive(c.epochs, c.drift), place)
        for place, c in enumerate(group.curves)
    ]
    title = "How far the tangent kernel moved"
    return Chart(title, "epoch", "relative to itself", lines, log_y=True, log_x=group.logarithmic)


def _positive(at: np.ndarray, values: np.ndarray) -> tuple[list[float], list[float]]:
    """What a logarithmic axis has room for."""
    keep = (values > 0) & np.isfinite(values)
    return at[keep].tolist(), values[keep].tolist()


def _losses_by_width(group: Group) -> Chart:
    lines = []
    for place, (label, curves) in enumerate(group.lines().items()):
        theirs = [(c.run.width, c.published(c.run.epochs)) for c in curves]
        rows = [(width, row) for width, row in theirs if row is not None]
        if rows:
            widths = [float(width) for width, _ in rows]
            middle, low, high = (list(v) for v in zip(*(row for _, row in rows), strict=True))
            lines.append(Line("", widths, middle, place, low, high, quiet=True))
        widths = [float(c.run.width) for c in curves]
        lines.append(Line(label, widths, [float(c.loss[-1]) for c in curves], place))
    title = f"Loss at epoch {group.curves[0].run.epochs}"
    return Chart(title, "width", "mean squared error", lines)


def _gaps_by_width(group: Group) -> Chart:
    lines = [
        Line(label, [float(c.run.width) for c in cs], [c.gap["limit"] for c in cs], place)
        for place, (label, cs) in enumerate(group.lines().items())
    ]
    title = "How far the prediction of infinite width is off"
    return Chart(title, "width", "difference of errors", lines, log_y=True, log_x=True)


def _drift_by_width(group: Group) -> Chart:
    lines = [
        Line(label, [float(c.run.width) for c in cs], [float(c.drift[-1]) for c in cs], place)
        for place, (label, cs) in enumerate(group.lines().items())
    ]
    return Chart("How far the tangent kernel moved", "width", "relative to itself", lines)


def _epoch_table(group: Group) -> Table:
    last = group.curves[0].run.epochs
    shown = sorted({e for e in AT if e < last} | {last})
    rows = []
    for curve in group.curves:
        rows.append([curve.run.method.label, *(_number(curve.at(e)) for e in shown)])
        theirs = [curve.published(e) for e in shown]
        if any(theirs):
            rows.append(["published", *("" if row is None else f"{row[0]:.4g}" for row in theirs)])
    return Table(["loss at epoch", *(f"{e:,}" for e in shown)], rows)


def _width_table(group: Group) -> Table:
    widths = sorted({c.run.width for c in group.curves})
    rows = []
    for label, curves in group.lines().items():
        by_width = {c.run.width: c for c in curves}
        ours = [by_width[m].loss[-1] if m in by_width else None for m in widths]
        rows.append([label, *(_number(v) for v in ours)])
        theirs = [by_width[m].published(by_width[m].run.epochs) for m in widths if m in by_width]
        if any(theirs):
            rows.append(["published", *(_range(row) for row in theirs)])
        if group.setting.has_limit:
            gaps = [by_width[m].gap["limit"] if m in by_width else None for m in widths]
            rows.append(["from infinite width", *("" if g is None else percent(g) for g in gaps)])
    return Table(["width", *(f"{m:,}" for m in widths)], rows)


def _rates(group: Group) -> Table:
    header = [
        "",
        "measured rate",
        "by the kernel at the start, in the long run",
        "kernel moved, at most",
    ]
    if group.setting.has_limit:
        header += ["largest difference from the prediction", "from infinite width"]
    return Table(header, [_rate_row(curve) for curve in group.curves])


def _rate_row(curve: Curve) -> list[str]:
    row = [
        curve.run.method.label,
        law(curve.rate),
        _in_the_long_run(curve),
        percent(float(np.nanmax(curve.drift))),
    ]
    return [*row, *(percent(gap) for gap in curve.gap.values())] if "limit" in curve.gap else row


def _has_starts(curve: Curve) -> bool:
    row = curve.published(int(curve.epochs[-1]))
    return row is not None and row[1] < row[2]


def _in_the_long_run(curve: Curve) -> str:
    """What theory has for the losses, for as long as the kernel stays what it is."""
    found = curve.predicted_rate
    if found.kind in ("diverges", "none"):
        return found.kind
    exponential, power = f"exp(−{significant(found.exponent)} t)", f"t^−{significant(found.power)}"
    if found.kind == "sublinear":
        return power
    if found.power == 0:
        return exponential
    epochs = found.crossover / curve.optimizer.time_per_step
    return f"{power} to epoch {significant(epochs)}, then {exponential}"


def _number(value: float | None) -> str:
    return "" if value is None else significant(value, 4)


def _range(row: tuple[float, float, float] | None) -> str:
    if row is None:
        return ""
    middle, low, high = (significant(v) for v in row)
    return middle if low == high else f"{middle} ({low} to {high})"
