"""The report of a study: one self-contained HTML file, from the store alone."""

from ..charts import Chart as Chart
from ..charts import Line as Line
from ..charts import Table as Table
from ._page import drawn as drawn
from ._page import marked as marked
from ._page import page as page
from ._page import written as written
from ._render import render as render
from ._render import write_report as write_report
