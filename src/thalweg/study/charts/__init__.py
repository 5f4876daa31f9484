"""Charts and tables, as they are shown on pages."""

from ._chart import STYLES as STYLES
from ._chart import Chart as Chart
from ._chart import Level as Level
from ._chart import Line as Line
from ._figure import Figure as Figure
from ._table import Table as Table
