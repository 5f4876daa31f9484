"""A chart with its explanation."""

from dataclasses import dataclass

from ._chart import Chart


@dataclass(frozen=True)
class Figure:
    """A chart and what stands below it."""

    chart: Chart
    caption: str
