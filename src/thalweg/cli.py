"""The command line: `thalweg run`, `resume`, `report`, `init`, `reproduce`.

JAX is imported inside the commands, so that help and mistakes are answered at once.
"""

import json
import re
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

app = cyclopts.App(
    name="thalweg",
    help="A laboratory for the optimisation dynamics of neural networks.",
    version=lambda: version("thalweg"),
    help_format="plaintext",
)

Quiet = Annotated[bool, Parameter(name="--quiet", negative="")]
# Several values after one name.
Several = Parameter(consume_multiple=True, negative="")


@app.command
def run(
    study: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name="--out")] = None,
    quiet: Quiet = False,
) -> None:
    """Carry out a study and write its report.

    Parameters
    ----------
    study
        A TOML file (see `thalweg init`); without one, a small study of embedded digits.
    out
        The directory for the results; by default a new one below thalweg-runs.
    quiet
        No progress, only the verdict.
    """
    from .study.declare import load_spec

    declaration = load_spec(study or _embedded())
    directory = out or _fresh_directory(declaration.spec.study.name)
    _with_jax()
    from .study import run_declared

    try:
        _finish(run_declared(declaration, directory, _progress(quiet)))
    except KeyboardInterrupt:
        _interrupted(directory)


@app.command
def resume(directory: Path, /, *, quiet: Quiet = False) -> None:
    """Go on with a study that was interrupted, from its last checkpoint.

    Parameters
    ----------
    directory
        The directory of the study.
    quiet
        No progress, only the verdict.
    """
    _with_jax()
    from .study import resume as go_on

    try:
        _finish(go_on(directory, _progress(quiet)))
    except KeyboardInterrupt:
        _interrupted(directory)


@app.command
def report(directory: Path, /) -> None:
    """Write the report again, from the store alone.

    Parameters
    ----------
    directory
        The directory of the study.
    """
    from .study.report import write_report

    print(f"report: {write_report(directory)}")


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


@app.command
def reproduce(
    paper: str,
    /,
    *,
    data: Annotated[Path, Parameter(name="--data")],
    networks: Annotated[list[str] | None, Several] = None,
    ratios: Annotated[list[float] | None, Several] = None,
    precisions: Annotated[list[str] | None, Several] = None,
    seed: int = 1,
    out: Annotated[Path | None, Parameter(name="--out")] = None,
    quiet: Quiet = False,
) -> None:
    """Carry out the experiments of a paper; the same command again goes on with them.

    Parameters
    ----------
    paper
        elkabetz-cohen-2021: gradient descent beside smaller steps and beside the flow.
    data
        A folder with MNIST's training images in IDX format.
    networks
        Of linear, relu, strided, pooled; by default all, which takes most of a day on two cores.
    ratios
        The divisors of the step size, by default 2 5 10 20.
    precisions
        Of float64, float32; by default both.
    seed
        For the networks' starts.
    out
        The directory for the results; by default one of the paper's name below thalweg-runs.
    quiet
        No progress, only what was found.
    """
    from ._names import look_up

    look_up(paper, {"elkabetz-cohen-2021": None}, "paper")
    directory = out or Path("thalweg-runs") / paper
    _with_jax()
    from .papers import elkabetz_cohen_2021 as experiment

    try:
        page, found = experiment.reproduce(
            data,
            directory,
            networks=networks or tuple(experiment.NETWORKS),
            ratios=ratios or experiment.RATIOS,
            precisions=precisions or experiment.PRECISIONS,
            seed=seed,
            progress=_progress(quiet),
        )
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from here.")
        sys.exit(130)
    _tell("What was found", [sentence.as_dict() for sentence in found], page)


def main() -> None:
    """Run the command line; mistakes end with one message and exit status 2."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        _complain(str(error))
        sys.exit(2)


def _complain(message: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False)


def _interrupted(directory: Path) -> None:
    _complain(f"interrupted; go on with: thalweg resume {directory}")
    sys.exit(130)


def _with_jax() -> None:
    """Import JAX in the precision that studies are made for."""
    import jax

    jax.config.update("jax_enable_x64", True)


def _progress(quiet: bool):
    from .study.progress import Silent, for_stream

    return Silent() if quiet else for_stream(sys.stderr)


def _embedded() -> Path:
    return Path(str(files("thalweg.study").joinpath("first_light.toml")))


def _fresh_directory(name: str) -> Path:
    stem = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "study"
    base = Path("thalweg-runs")
    number = 1
    while (base / f"{stem}-{number}").exists():
        number += 1
    return base / f"{stem}-{number}"


def _finish(report_path: Path) -> None:
    """Print the verdict, and where the report is."""
    from .study.store import Store

    found = json.loads(Store.open(report_path.parent).attributes["verdict"])
    _tell("Verdict", found, report_path)


def _tell(title: str, found: list[dict], report_path: Path) -> None:
    """Print sentences with their marks, and where the report is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"good": "[green]✓[/]", "notice": "[cyan]•[/]", "warning": "[yellow]![/]"}
    sentences = Table.grid(padding=(0, 1))
    for sentence in found:
        sentences.add_row(marks[sentence["level"]], Text(sentence["text"]))
    console = Console(highlight=False)
    console.print(f"\n[bold]{title}[/]   [dim]✓ holds   • to note   ! to look at[/]")
    console.print(sentences)
    console.print()
    print(f"report: {report_path}")


if __name__ == "__main__":
    main()
