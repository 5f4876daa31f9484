"""The command line: `thalweg run`, `resume`, `report`, `init`, `reproduce`.

JAX is imported inside the commands, so that help and mistakes are answered at once.
"""

import json
import os
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ._console import AsJson, Only, Quiet, Strict, complain, progress, tell, with_jax
from ._reproduce import app as papers

app = cyclopts.App(
    name="thalweg",
    help="A laboratory for the optimisation dynamics of neural networks.",
    version=lambda: version("thalweg"),
    help_format="plaintext",
)

app.command(papers)


app.register_install_completion_command(name="completion", help="Install shell completion.")


@app.command
def run(
    study: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name="--out")] = None,
    only: Only = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Carry out a study and write its report.

    Parameters
    ----------
    study
        A TOML file (see `thalweg init`); without one, a small study of embedded digits.
    out
        The directory for the results; by default a new one below thalweg-runs.
    only
        Stages to carry out, with those that they need; by default all. `resume` does the rest.
    quiet
        No progress, only the verdict.
    as_json
        The verdict, the paths and the costs as JSON.
    strict
        End with exit code 1 if a flow or a run did not reach its end, or is not known well enough.
    """
    with_jax()
    from .study import load_spec, run_declared

    declaration = load_spec(study or _embedded())
    directory = out or _fresh_directory(declaration.spec.study.name)
    try:
        report = run_declared(declaration, directory, progress(quiet), only=only)
    except KeyboardInterrupt:
        _interrupted(directory)
    else:
        _finish(report, as_json, strict)


@app.command
def resume(
    directory: Path,
    /,
    *,
    only: Only = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Go on with a study that was interrupted, from its last checkpoint.

    Parameters
    ----------
    directory
        The directory of the study.
    only
        Stages to carry out, with those that they need; by default all.
    quiet
        No progress, only the verdict.
    as_json
        The verdict, the paths and the costs as JSON.
    strict
        End with exit code 1 if a flow or a run did not reach its end, or is not known well enough.
    """
    with_jax()
    from .study import resume as go_on

    try:
        report = go_on(directory, progress(quiet), only=only)
    except KeyboardInterrupt:
        _interrupted(directory)
    else:
        _finish(report, as_json, strict)


@app.command
def report(
    directory: Path, /, *, out: Annotated[Path | None, Parameter(name="--out")] = None
) -> None:
    """Write the report again, from the store alone.

    Parameters
    ----------
    directory
        The directory of the study.
    out
        The file to write; by default report.html in the directory.
    """
    from .study.report import write_report

    print(f"report: {write_report(directory, out)}")


@app.command
def init(file: Path = Path("study.toml"), /) -> None:
    """Write a commented study to start from.

    Parameters
    ----------
    file
        Where to write it; an existing file is left alone.
    """
    if file.exists():
        raise ValueError(f"{file}: exists already; give another name.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file}: there is no folder {file.parent}.")
    text = _embedded().read_text(encoding="utf-8")
    # Results are kept by the study's name: another study, another name.
    name = json.dumps(file.stem.replace("-", " ").replace("_", " "), ensure_ascii=False)
    text = re.sub(r'^name = "first light"', lambda _: f"name = {name}", text, flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")
    print(f"wrote {file}; carry it out with: thalweg run {file}")


def main() -> None:
    """Run the command line; mistakes end with one message and exit status 2."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Who reads has read enough, as `head` does; nothing is left to be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError, OSError) as error:
        complain(str(error))
        sys.exit(2)


def _interrupted(directory: Path) -> None:
    complain(f"interrupted; go on with: thalweg resume {directory}")
    sys.exit(130)


def _embedded() -> Path:
    return Path(str(files("thalweg.study").joinpath("first_light.toml")))


def _fresh_directory(name: str) -> Path:
    stem = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "study"
    base = Path("thalweg-runs")
    number = 1
    while (base / f"{stem}-{number}").exists():
        number += 1
    return base / f"{stem}-{number}"


def _finish(report_path: Path, as_json: bool, strict: bool) -> None:
    """Print the verdict, and where the report is."""
    from .study.results import read_results
    from .study.store import Store
    from .study.summary import summary, troubled
    from .study.verdict import headlines

    results = read_results(Store.open(report_path.parent))
    if as_json:
        print(json.dumps(summary(results, report_path), indent=2, ensure_ascii=False))
    else:
        found = [*headlines(results.verdict), *results.verdict]
        nothing = {"text": "These stages have nothing to say by themselves.", "level": "notice"}
        tell("Verdict", found or [nothing], report_path)
    if strict and troubled(results):
        sys.exit(1)


if __name__ == "__main__":
    main()
