"""`thalweg reproduce`: the experiments of papers, one command for each."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from ._console import Quiet, complain, progress, tell, with_jax
from ._names import look_up

app = cyclopts.App(
    name="reproduce",
    help="Carry out the experiments of a paper; the same command again goes on with them.",
)

Data = Annotated[Path, Parameter(name="--data")]
Out = Annotated[Path | None, Parameter(name="--out")]
# Several values after one name.
Several = Parameter(consume_multiple=True, negative="")
Names = Annotated[list[str] | None, Several]

_RUNS = Path("thalweg-runs")


@app.command(name="elkabetz-cohen-2021")
def elkabetz_cohen_2021(
    *,
    data: Data,
    networks: Names = None,
    ratios: Annotated[list[float] | None, Several] = None,
    precisions: Names = None,
    seed: int = 1,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Gradient descent beside smaller steps and beside the flow.

    Parameters
    ----------
    data
        A folder with MNIST's training images in IDX format.
    networks
        Of linear, relu, strided, pooled; by default all; the last two take days on two cores.
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
    with_jax()
    from .papers import elkabetz_cohen_2021 as paper

    _carry_out(
        paper.reproduce,
        data,
        out or _RUNS / "elkabetz-cohen-2021",
        networks=networks or tuple(paper.NETWORKS),
        ratios=ratios or paper.RATIOS,
        precisions=precisions or paper.PRECISIONS,
        seed=seed,
        progress=progress(quiet),
    )


@app.command(name="bu-xu-chen-2021")
def bu_xu_chen_2021(
    *,
    data: Data,
    experiments: Names = None,
    settings: Names = None,
    epochs: int | None = None,
    seed: int = 1,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Heavy ball, Nesterov's method and two momenta, by epoch and by width.

    Parameters
    ----------
    data
        A folder with MNIST's training images in IDX format, of which the first 600 are taken.
    experiments
        Of heavy-ball, nesterov, higher-momentum, heavy-ball-widths, nesterov-widths; by default
        all, which takes hours on two cores.
    settings
        Of published, theory; by default both.
    epochs
        Another number for the runs by epoch, which is 5000 as published and 1000 for the theory.
    seed
        For the networks' starts.
    out
        The directory for the results; by default one of the paper's name below thalweg-runs.
    quiet
        No progress, only what was found.
    """
    with_jax()
    from .papers import bu_xu_chen_2021 as paper

    protocols = {
        name: setting.protocol if epochs is None else replace(setting.protocol, epochs=epochs)
        for name, setting in paper.SETTINGS.items()
    }
    _carry_out(
        paper.reproduce,
        data,
        out or _RUNS / "bu-xu-chen-2021",
        experiments=experiments or tuple(paper.EXPERIMENTS),
        settings=settings or tuple(paper.SETTINGS),
        protocols=protocols,
        seed=seed,
        progress=progress(quiet),
    )


@app.default
def _paper(
    *given: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
) -> None:
    """Answer a paper that is not known, or none."""
    papers = {name: None for name in app if not name.startswith("-")}
    if not given or given[0].startswith("-"):
        raise ValueError(f"paper: name one first (valid: {', '.join(papers)}).")
    look_up(given[0], papers, "paper")


def _carry_out(reproduce: Callable[..., Any], data: Path, directory: Path, **chosen: Any) -> None:
    """Carry a paper out, and tell what was found."""
    try:
        page, found = reproduce(data, directory, **chosen)
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on from here.")
        sys.exit(130)
    tell("What was found", [sentence.as_dict() for sentence in found], page)
