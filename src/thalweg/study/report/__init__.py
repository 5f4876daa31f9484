"""The report of a study: one self-contained HTML file, from the store alone."""

from ._render import render as render
from ._render import write_report as write_report
