"""Line charts as inline SVG.

Colours, fonts and line widths come from the page's style sheet through classes, so that a chart
follows the light and the dark scheme and prints well; each line also has its own dash pattern, so
that colour is never the only difference.
"""

import csv
import dataclasses
import io
import itertools
import math
from dataclasses import dataclass, field
from html import escape

from ..._numbers import significant
from ._axes import Axis, span

WIDTH, HEIGHT = 680, 340
_RIGHT, _TOP, _BOTTOM = 16, 36, 46
# Room for one character of a tick label, at the size that it has on a phone.
_CHARACTER = 12
# A line outside is drawn up to so many times the largest value of the others.
_ROOM = 5.0
# So many points of a line show their values.
_POINTS = 60
# For a chart in a file of its own: the light colours of the page.
_COLOURS = ("#0b6fb8", "#c4570a", "#158466", "#a8447f", "#6b55b8", "#6d6f72")
_DASHES = ("none", "9 4", "2.5 4.5", "12 4 2.5 4", "5 3", "16 3")
# Two dozen lines can be told apart: each colour with two patterns, strong and faint.
STYLES = 12


def _style() -> str:
    rules = [
        "text{font:13px system-ui,sans-serif;fill:#1d2126}.grid{stroke:#dcdfe2;fill:none}",
        ".stroke{stroke:#5d6670;fill:none}.line{fill:none;stroke-width:2.2}.band{opacity:.22}",
        ".level{fill:none;stroke:#1d2126;stroke-dasharray:7 5}.value{fill:none;pointer-events:all}",
    ]
    for number in range(STYLES):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[(number + number // len(_COLOURS)) % len(_DASHES)]
        rules.append(f".line.c{number},.level.c{number}{{stroke:{colour};stroke-dasharray:{dash}}}")
        rules.append(f".band.c{number},.dot.c{number}{{fill:{colour}}}")
    return "".join([*rules, ".quiet{stroke-width:5;opacity:.3;stroke-dasharray:none}"])


@dataclass(frozen=True)
class Line:
    """A named line, with a band around it where its error is known.

    `colour` is the number of a palette entry, which also chooses the dash pattern. A line that is
    `outside` sets no axis, but for a little more room: one that diverges, a bound far above.
    """

    label: str
    x: list[float]
    y: list[float]
    colour: int
    low: list[float] | None = None
    high: list[float] | None = None
    quiet: bool = False
    outside: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line at a value that matters, such as a limit of stability."""

    label: str
    y: float
    colour: int | None = None


@dataclass(frozen=True)
class Chart:
    """One chart: lines and levels over a common horizontal axis."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    levels: list[Level] = field(default_factory=list)
    log_y: bool = False
    log_x: bool = False

    def with_log_where_it_helps(self) -> "Chart":
        """With a logarithmic vertical axis where values are positive and span a decade."""
        values = [v for line in self._inside() for v in line.y if math.isfinite(v)]
        log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
        return dataclasses.replace(self, log_y=log)

    def svg(self) -> str:
        """The chart as an `<svg>` element; all text in it is escaped."""
        x, y = self._axes()
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="chart"'
            f' aria-label="{escape(self.description())}" xmlns="http://www.w3.org/2000/svg">',
            *self._grid(x, y),
        ]
        drawn = [part for line in self.lines for part in self._band(line, x, y)]
        drawn += [part for level in self.levels for part in self._level(level, x, y)]
        drawn += [part for line in self.lines for part in self._path(line, x, y)]
        drawn += [part for line in self.lines for part in self._values(line, x, y)]
        return "\n".join([*parts, *drawn, "</svg>"])

    def standalone(self) -> str:
        """The chart as an SVG file of its own, with its style inside."""
        lines = [line.label for line in self.lines if line.label]
        title = (
            f"<title>{escape(self.description())}</title><desc>{escape('; '.join(lines))}</desc>"
        )
        head, body = self.svg().split("\n", 1)
        return f"{head}\n{title}<style>{_style()}</style>\n{body}"

    def csv(self) -> str:
        """The numbers of the chart: a row for each point of each line, with its error band."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(["line", self.x_label, self.y_label, "low", "high"])
        for line in self.lines:
            nothing = [""] * len(line.x)
            bands = (line.low or nothing, line.high or nothing)
            rows.writerows(zip([line.label] * len(line.x), line.x, line.y, *bands, strict=True))
        return out.getvalue()

    def description(self) -> str:
        """What the chart shows, for those who cannot see it."""
        names = ", ".join(line.label for line in self.lines if line.label)
        return f"{self.title}: {self.y_label} against {self.x_label}. Lines: {names}."

    def _axes(self) -> tuple[Axis, Axis]:
        xs = [v for line in self.lines for v in line.x]
        inside = self._inside()
        ys = [v for line in inside for v in (*line.y, *(line.high or []))]
        ys += [v for line in inside if not self.log_y for v in line.low or []]
        ys += [level.y for level in self.levels]
        high = max((v for v in ys if math.isfinite(v)), default=0.0)
        room = high * (_ROOM if high > 0 else 0)
        ys += [v for line in self.lines for v in line.y if high < v < room]
        x_low, x_high = (min(xs, default=0), max(xs, default=1))
        if self.log_x:
            x_low = min((v for v in xs if v > 0), default=0.1)
        y_low, y_high = span(ys, self.log_y)
        y = Axis(y_low, y_high, HEIGHT - _BOTTOM, _TOP, self.log_y)
        left = 14 + _CHARACTER * max(len(label) for _, label in y.ticks())
        x_high = max(x_high, x_low * (1 + 1e-9) + 1e-12)
        return Axis(x_low, x_high, left, WIDTH - _RIGHT, self.log_x), y

    def _grid(self, x: Axis, y: Axis) -> list[str]:
        parts = []
        for value, label in y.ticks():
            at = y(value)
            parts.append(f'<path class="grid" d="M{x.start:.0f} {at:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{x.start - 8:.0f}" y="{at + 4:.1f}"'
                f' text-anchor="end">{label}</text>'
            )
        for value, label in x.ticks():
            at = x(value)
            parts.append(f'<path class="stroke" d="M{at:.1f} {HEIGHT - _BOTTOM}v5"/>')
            # Centred, but a label at the right end is not to be cut off.
            beyond = at + _CHARACTER * len(label) / 2 > WIDTH
            place = (WIDTH, "end") if beyond else (at, "middle")
            parts.append(
                f'<text class="tick" x="{place[0]:.1f}" y="{HEIGHT - _BOTTOM + 19}"'
                f' text-anchor="{place[1]}">{label}</text>'
            )
        parts.append(
            f'<path class="stroke" d="M{x.start:.0f} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'
        )
        middle = (x.start + x.end) / 2
        parts.append(
            f'<text class="axis" x="{middle}" y="{HEIGHT - 6}"'
            f' text-anchor="middle">{escape(self.x_label)}</text>'
        )
        parts.append(f'<text class="axis" x="2" y="17">{escape(self.y_label)}</text>')
        return parts

    def _inside(self) -> list[Line]:
        """The lines that set the axes."""
        return [line for line in self.lines if not line.outside] or self.lines

    def _visible(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.log_y)

    def _path(self, line: Line, x: Axis, y: Axis) -> list[str]:
        """The line, interrupted where a value is missing; a lone point is a dot."""
        style = f"line c{line.colour}" + (" quiet" if line.quiet else "")
        points, within = [], True
        for a, b in zip(line.x, line.y, strict=True):
            # A line that leaves the chart ends at its frame.
            inside = self._visible(b) and (a > 0 or not self.log_x)
            points.append((x(a), y(b)) if inside and (within or b <= y.high) else None)
            within = b <= y.high
        parts = []
        for present, run in itertools.groupby(points, key=lambda p: p is not None):
            if not present:
                continue
            piece = [p for p in run if p is not None]
            if len(piece) == 1:
                a, b = piece[0]
                parts.append(
                    f'<circle class="dot c{line.colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
                )
            else:
                path = "L".join(f"{a:.1f} {b:.1f}" for a, b in piece)
                parts.append(f'<path class="{style}" d="M{path}"/>')
        return parts

    def _values(self, line: Line, x: Axis, y: Axis) -> list[str]:
        """What the pointer shows over a line: its values."""
        points = [p for p in zip(line.x, line.y, strict=True) if self._visible(p[1])]
        every = max(1, len(points) // _POINTS)
        return [
            f'<circle class="value" cx="{x(a):.1f}" cy="{y(b):.1f}" r="7"><title>'
            f"{escape(line.label)}: {significant(b)} at {significant(a)}</title></circle>"
            for a, b in points[::every]
            if a > 0 or not self.log_x
        ]

    def _band(self, line: Line, x: Axis, y: Axis) -> list[str]:
        if line.low is None or line.high is None:
            return []
        rows = [
            (a, low if self._visible(low) else y.low, high)
            for a, low, high in zip(line.x, line.low, line.high, strict=True)
            if self._visible(high) and (a > 0 or not self.log_x)
        ]
        if len(rows) < 2:
            return []
        over = [f"{x(a):.1f} {y(high):.1f}" for a, _, high in rows]
        under = [f"{x(a):.1f} {y(low):.1f}" for a, low, _ in reversed(rows)]
        return [f'<path class="band c{line.colour}" d="M{"L".join(over + under)}Z"/>']

    def _level(self, level: Level, x: Axis, y: Axis) -> list[str]:
        at = y(level.y)
        colour = "" if level.colour is None else f" c{level.colour}"
        return [
            f'<path class="level{colour}" d="M{x.start:.0f} {at:.1f}H{WIDTH - _RIGHT}"/>',
            f'<text class="note" x="{WIDTH - _RIGHT - 4}" y="{at - 5:.1f}"'
            f' text-anchor="end">{escape(level.label)}</text>',
        ]
