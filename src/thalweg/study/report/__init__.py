"""stub"""

from pathlib import Path


def write_report(directory):
    return Path(directory) / "report.html"
