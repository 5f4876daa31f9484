"""The command line, as it is typed."""

import subprocess
import sys
import time

import pytest

from .studies import PLAIN


def thalweg(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "thalweg", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_help_is_quick_and_imports_no_jax():
    start = time.perf_counter()
    done = thalweg("--help")
    assert time.perf_counter() - start < 1.0
    assert done.returncode == 0
    for command in ("run", "resume", "report", "init", "reproduce"):
        assert command in done.stdout
    check = "import sys, thalweg.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_init_then_a_mistake(tmp_path):
    assert thalweg("init", "my.toml", cwd=tmp_path).returncode == 0
    again = thalweg("init", "my.toml", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    text = (tmp_path / "my.toml").read_text()
    (tmp_path / "my.toml").write_text(text.replace('"tanh"', '"thanh"'))
    done = thalweg("run", "my.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "my.toml:" in done.stderr
    assert "did you mean 'tanh'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "thalweg-runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.toml"), "no such file"),
        (("resume", "nowhere"), "there is no such directory"),
        (("report", "nowhere"), "there is no such directory"),
        (("rum",), "rum"),
        (("reproduce", "elkabetz", "--data", "."), "did you mean 'elkabetz-cohen-2021'?"),
        (("reproduce", "elkabetz-cohen-2021", "--data", "nowhere"), "there is no folder nowhere"),
        (("reproduce", "bu-xu-chen-2021", "--data", "nowhere"), "there is no folder nowhere"),
        (("reproduce", "--data", "."), "paper: name one first (valid: elkabetz-cohen-2021, "),
    ],
)
def test_mistakes_end_with_one_message(arguments, message, tmp_path):
    done = thalweg(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_run_and_report(tmp_path):
    (tmp_path / "tiny.toml").write_text(PLAIN)
    done = thalweg("run", "tiny.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout
    assert "gradient flow: done in" in done.stderr, "plain lines when not on a terminal"
    report = tmp_path / "thalweg-runs" / "tiny-1" / "report.html"
    assert str(report.relative_to(tmp_path)) in done.stdout
    first = report.read_text()
    report.unlink()
    assert thalweg("report", report.parent, cwd=tmp_path).returncode == 0
    assert report.read_text() == first
