"""The charts of the report."""

import numpy as np

from ..._numbers import significant
from ._chart import Chart, Level, Line
from ._results import Member, Results

_TIME = "flow time t"


def loss_chart(results: Results) -> Chart:
    """The loss of every flow and every optimizer, on the common clock."""
    lines = [_line(member, "loss", results, quiet=True) for member in results.flows]
    lines += [_line(member, "loss", results) for member in results.optimizers]
    values = [v for line in lines for v in line.y if np.isfinite(v)]
    log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
    return Chart("Loss", _TIME, "loss", lines, log_y=log)


def distance_chart(results: Results) -> Chart:
    """Distance of every optimizer to its flow, in parameters, with error bands.

    Beside it what the law predicts, and a certified bound where there is one.
    """
    chart = _distances(results, "Distance to the flow", "distance to the flow", relative=False)
    for member in results.optimizers:
        gap, sure = results.comparisons.get(member.name), results.certificates.get(member.name)
        expected = [] if gap is None else _shown(gap, "predicted")
        bound = [] if sure is None else _shown(sure, "bound")
        for what, points in (("predicted", expected), ("certified bound", bound)):
            if points:
                time, value = (list(column) for column in zip(*points, strict=True))
                colour = _colour(member, results)
                name = f"{what}, {member.label}"
                chart.lines.append(Line(name, time, value, colour, quiet=True))
    return chart


def kernel_chart(results: Results) -> Chart:
    """The loss of every optimizer, and what the tangent kernel at the start says it should be."""
    lines = []
    for member in results.optimizers:
        seen = results.kernel.get(member.name)
        points = [] if seen is None else _shown(seen, "predicted_loss")
        if points:
            time, value = (list(column) for column in zip(*points, strict=True))
            name = f"predicted, {member.label}"
            lines += [
                _line(member, "loss", results),
                Line(name, time, value, _colour(member, results), quiet=True),
            ]
    values = [v for line in lines for v in line.y if np.isfinite(v)]
    log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
    return Chart("Loss, and what the tangent kernel predicts", _TIME, "loss", lines, log_y=log)


def drift_chart(results: Results) -> Chart:
    """How far the tangent kernel has moved along every run."""
    lines = []
    for member in results.optimizers:
        seen = results.kernel.get(member.name)
        if seen is not None:
            time, value = seen.numbers("time"), seen.numbers("drift")
            lines.append(Line(member.label, time, value, _colour(member, results)))
    return Chart("Drift of the tangent kernel", _TIME, "|K − K₀| / |K₀|", lines)


def relative_chart(results: Results) -> Chart:
    """The same, as a fraction of the distance that the flow travels."""
    return _distances(
        results, "Relative distance to the flow", "distance / distance travelled", relative=True
    )


def _distances(results: Results, title: str, label: str, relative: bool) -> Chart:
    lines = []
    for member in results.optimizers:
        gap = results.comparisons.get(member.name)
        if gap is None:
            continue
        time, distance = np.asarray(gap.numbers("time")), np.asarray(gap.numbers("distance"))
        error, moved = np.asarray(gap.numbers("distance_error")), np.asarray(gap.numbers("moved"))
        scale = np.full_like(moved, moved.max(initial=0) if relative else 1)
        keep = (distance > 0) & np.isfinite(distance / scale) & (moved > 0)
        low, high = (distance - error) / scale, (distance + error) / scale
        lines.append(
            Line(
                member.label,
                time[keep].tolist(),
                (distance / scale)[keep].tolist(),
                _colour(member, results),
                low[keep].tolist(),
                high[keep].tolist(),
            )
        )
    return Chart(title, _TIME, label, lines, log_y=True)


def sharpness_charts(results: Results) -> list[Chart]:
    """Sharpness x step size along each optimizer, against its limit of stability."""
    charts = []
    for member in results.optimizers:
        seen = results.curvature.get(member.name)
        if seen is None:
            continue
        step = float(member.attributes["step_size"])
        limit = float(member.attributes["stability_limit"])
        value = _first(seen, "largest")
        radius = _first(seen, "largest_residual")
        line = Line(
            member.label,
            seen.numbers("time"),
            value.tolist(),
            _colour(member, results),
            (value - radius).tolist(),
            (value + radius).tolist(),
        )
        top = np.nanmax(value, initial=0)
        name = "2/η" if limit == 2 else f"{significant(limit)}/η"
        level = Level(f"limit of stability {name} = {significant(limit / step)}", limit / step)
        apart = top > 0 and not 0.25 < limit / step / top < 4
        charts.append(
            Chart(
                f"Sharpness along {member.label}",
                _TIME,
                "largest eigenvalue",
                [line],
                [level],
                log_y=bool(apart and np.nanmin(value) > 0),
            )
        )
    return charts


def smallest_chart(results: Results) -> Chart:
    """The smallest eigenvalue of the Hessian along every flow and optimizer."""
    lines = []
    for member in (*results.flows, *results.optimizers):
        seen = results.curvature.get(member.name)
        if seen is None:
            continue
        value, radius = _first(seen, "smallest"), _first(seen, "smallest_residual")
        lines.append(
            Line(
                member.label,
                seen.numbers("time"),
                value.tolist(),
                _colour(member, results),
                (value - radius).tolist(),
                (value + radius).tolist(),
                quiet=member in results.flows,
            )
        )
    return Chart(
        "Smallest eigenvalue of the Hessian", _TIME, "smallest eigenvalue", lines, [Level("", 0.0)]
    )


def _shown(member: Member, name: str) -> list[tuple[float, float]]:
    """Times and values that a logarithmic axis has room for."""
    values = member.numbers(name)
    pairs = zip(member.numbers("time"), values, strict=True) if values else ()
    return [(t, v) for t, v in pairs if np.isfinite(v) and v > 0]


def _line(member: Member, name: str, results: Results, quiet: bool = False) -> Line:
    return Line(
        member.label,
        member.numbers("time"),
        member.numbers(name),
        _colour(member, results),
        quiet=quiet,
    )


def _colour(member: Member, results: Results) -> int:
    """An optimizer has a colour of its own; a flow the colour of its first optimizer."""
    for i, optimizer in enumerate(results.optimizers):
        if member is optimizer or optimizer.attributes.get("flow") == member.name:
            return i % 6
    return 5


def _first(member: Member, name: str) -> np.ndarray:
    """The outermost of several eigenvalues."""
    column = member.column(name)
    return np.full(0, np.nan) if column is None else column.reshape(len(column), -1)[:, 0]
