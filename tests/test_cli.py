"""The command line, as it is typed."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from .studies import PLAIN, assert_same_numbers


def thalweg(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "thalweg", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


# What takes time to import; the command line needs none of it to answer.
HEAVY = ("jax", "equinox", "diffrax", "numpy", "scipy", "pydantic", "zarr", "xarray", "sklearn")
HEAVY += ("matplotlib", "jinja2")


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys, thalweg.cli\n"
        "try:\n"
        "    thalweg.cli.main()\n"
        "finally:\n"
        f"    print('imported:', [m for m in {HEAVY} if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported: []\n")
    if arguments == ("--help",):
        for command in ("run", "resume", "report", "init", "reproduce"):
            assert command in done.stdout


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


MISTAKES = [
    (("run", "nowhere.toml"), "no such file"),
    (("resume", "nowhere"), "there is no such directory"),
    (("report", "nowhere"), "there is no such directory"),
    (("rum",), "rum"),
    (("run", "--only", "curvatur"), "did you mean 'curvature'?"),
    (("reproduce", "elkabetz", "--data", "."), "did you mean 'elkabetz-cohen-2021'?"),
    (("reproduce", "elkabetz-cohen-2021", "--data", "nowhere"), "there is no folder nowhere"),
    (("reproduce", "bu-xu-chen-2021", "--data", "nowhere"), "there is no folder nowhere"),
    (("reproduce", "--data", "."), "paper: name one first (valid: elkabetz-cohen-2021, "),
]
# One command after the other in one process, since most of a mistake's time is what is imported.
# What is raised but an exit ends it.
ONE_BY_ONE = """
import contextlib, io, json, sys
from thalweg import cli

for arguments in json.loads(sys.argv[1]):
    sys.argv, told, status = ["thalweg", *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, told.getvalue()]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit status and all that was said, by the command."""
    commands = [arguments for arguments, _ in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("mistakes"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return dict(zip(commands, found, strict=True)) | {"beside": done.stderr}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_end_with_one_message(arguments, message, answers):
    status, told = answers[arguments]
    assert status not in (0, None)
    assert message in told
    assert "Traceback" not in told + answers["beside"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which a study was run, and what was said of it."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.toml").write_text(PLAIN)
    return folder, thalweg("run", "tiny.toml", cwd=folder)


def test_run_and_report(ran):
    folder, done = ran
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout
    assert "gradient flow: done in" in done.stderr, "plain lines when not on a terminal"
    # 20 steps of gradient descent, and 10 of heavy ball.
    assert "time: 30 steps of optimizers, at " in done.stderr
    assert "gradient flow: 5 saved times ..." in done.stderr
    report = folder / "thalweg-runs" / "tiny-1" / "report.html"
    assert str(report.relative_to(folder)) in done.stdout
    first = report.read_text()
    report.unlink()
    assert thalweg("report", report.parent, cwd=folder).returncode == 0
    assert report.read_text() == first


def test_what_programs_read(ran, diverged, tmp_path):
    folder, _ = ran
    where = folder / "thalweg-runs" / "tiny-1"
    done = thalweg("resume", where, "--json", "--strict", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == dict.fromkeys(
        ("gradient_flow", "heavy_ball_flow", "gradient_descent", "heavy_ball"), "completed"
    )
    assert [line["text"].partition(":")[0] for line in found["headlines"]] == [
        "Gradient descent with step 0.05",
        "Heavy ball with step 0.01",
    ]
    assert found["gradients"]["gradient descent"] == 20
    assert found["seconds"]["flows/gradient_flow"] > 0
    assert found["report"] == str(where / "report.html")
    shutil.copytree(diverged, tmp_path / "diverged")
    done = thalweg("resume", tmp_path / "diverged", "--strict", "--quiet")
    assert done.returncode == 1
    assert "diverged at step" in done.stdout
    # A line for each finding, however long.
    told = done.stdout.splitlines()
    assert all(line[:2] in ("✓ ", "• ", "! ") for line in told[2:-2] if line)
    elsewhere = tmp_path / "elsewhere.html"
    assert thalweg("report", tmp_path / "diverged", "--out", elsewhere).returncode == 0
    assert elsewhere.read_text() == (tmp_path / "diverged" / "report.html").read_text()


# The command line, which the system kills when the first row of the second flow is there.
KILLED = """
import os, signal
from thalweg import cli
from thalweg.study.store import Store

write_row = Store.write_row

def write_and_die(self, path, *row):
    write_row(self, path, *row)
    if path == "flows/heavy_ball_flow":
        os.kill(os.getpid(), signal.SIGKILL)

Store.write_row = write_and_die
cli.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_and_resume_from_the_command_line(ran, tmp_path):
    folder, out = ran[0], tmp_path / "out"
    command = [sys.executable, "-c", KILLED, "run", str(folder / "tiny.toml"), "--out", str(out)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (out / "study.zarr" / "flows" / "heavy_ball_flow").exists()
    assert not (out / "report.html").exists()
    done = thalweg("resume", out, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout
    assert_same_numbers(folder / "thalweg-runs" / "tiny-1", out)
