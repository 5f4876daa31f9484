"""The examples on pages of the documentation run, in order, as one program."""

import re
from pathlib import Path

import matplotlib
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["objectives", "results", "studies"])
def test_pages_run(page, monkeypatch, tmp_path, capsys):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert program.count("\n") > 10
    exec(compile(program, f"{page}.md", "exec"), {})
    shown = re.search(r"^prints\n\n```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    if shown:
        first, *_ = shown.group(1).splitlines()
        assert first in capsys.readouterr().out
