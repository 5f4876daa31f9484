"""Gradient descent with step 1e-3 beside smaller steps and beside the flow: four networks.

Every network in every precision is a study of its own, so that all of its numbers are on disk while
it goes on, an interrupted one goes on from where it was, and each has a report with everything that
studies have. What the paper compares, runs with each other, is made of them afterwards.
"""

import itertools
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ..._names import look_up
from ...datasets import idx
from ...study import Declaration, Spec, StoreError, parse_spec, run_declared
from ...study import resume as resume_study
from ...study._lock import Lock
from ...study.build import build
from ...study.progress import SAVED, Progress, Silent, Stage
from ...study.sentences import Sentence
from ...study.store import STORE_NAME, Store
from ._comparison import read_comparisons
from ._findings import findings
from ._page import write_page
from ._published import SAMPLES, STEP_SIZE, STEPS
from ._sides import carry_out_sides

RATIOS = (2, 5, 10, 20)
PRECISIONS = ("float64", "float32")
# Every fiftieth of MNIST's training images.
_EVERY = 50


@dataclass(frozen=True)
class Network:
    """A network of the paper: its title, its section of a study, and its flow's tolerance.

    The tolerances make the flow's error small against the distances that are measured.
    """

    title: str
    section: str
    rtol: float


_FULLY_CONNECTED = """\
kind = "fully_connected"
widths = [50, 50]
activation = "{activation}"
bias = false
init = "xavier"
"""

NETWORKS = {
    "linear": Network(
        "Fully connected, linear", _FULLY_CONNECTED.format(activation="linear"), 1e-7
    ),
    "relu": Network("Fully connected, ReLU", _FULLY_CONNECTED.format(activation="relu"), 5e-6),
    "strided": Network(
        "Convolutional, strided (“adapted”)", 'kind = "convolutional_strided"\n', 1e-5
    ),
    "pooled": Network(
        "Convolutional, pooled (“off-the-shelf”)", 'kind = "convolutional_pooled"\n', 3e-5
    ),
}


@dataclass(frozen=True)
class Protocol:
    """Step size and number of steps of the largest, how many are looked at, and on how much data.

    The published one unless something smaller is meant to be tried.
    """

    step_size: float = STEP_SIZE
    steps: int = STEPS
    looks: int = 100
    samples: int = SAMPLES


PUBLISHED_PROTOCOL = Protocol()


def reproduce(
    data: str | Path,
    directory: str | Path,
    *,
    networks: Sequence[str] = tuple(NETWORKS),
    ratios: Sequence[float] = RATIOS,
    precisions: Sequence[str] = PRECISIONS,
    seed: int = 1,
    protocol: Protocol = PUBLISHED_PROTOCOL,
    progress: Progress | None = None,
) -> tuple[Path, list[Sentence]]:
    """Carry the experiment out, or go on with it; returns the page that tells all, and findings.

    **Arguments:**

    - `data`: a folder with MNIST's training images in IDX format, or with only every fiftieth.
    - `directory`: where to keep the studies. What is complete there is not computed again.
    - `networks`, `ratios`, `precisions`: which of `NETWORKS`, which divisors of the step size, and
        which of `PRECISIONS`.
    - `seed`: for the networks' starts. (The published ones cannot be had: another generator.)
    - `protocol`: step size, steps and samples.

    Gradients, for every network in every precision: `1 + sum(ratios)` times 10,000 and what the
    flow takes, which is far less.

    **Raises:** ValueError for names that are not known, ratios that are not whole numbers above 1,
    and data of which the 1000 images cannot be taken; StoreError where other results lie.
    """
    chosen = {network: look_up(network, NETWORKS, "networks") for network in networks}
    for precision in precisions:
        look_up(precision, dict.fromkeys(PRECISIONS), "precisions")
    if not chosen or not precisions:
        raise ValueError("networks, precisions: at least one of each.")
    if not ratios or any(not float(ratio).is_integer() or ratio < 2 for ratio in ratios):
        raise ValueError(f"ratios: expected whole numbers of at least 2, got {list(ratios)}.")
    divisors = sorted({int(ratio) for ratio in ratios})
    directory, every = Path(directory), _spacing(data, protocol)
    studies = {
        (network, precision): parse_spec(
            _declaration(what, precision, data, every, divisors, seed, protocol)
        )
        for network, what in chosen.items()
        for precision in precisions
    }
    _check_neighbours(directory, next(iter(studies.values())).spec)
    page, found = directory / "report.html", []
    for (network, precision), declaration in studies.items():
        study = f"{network}-{precision}"
        _carry_out(declaration, directory / study, _Within(progress or Silent(), study))
        # Written again after each, so that there is something to look at from early on.
        comparisons = read_comparisons(directory, NETWORKS)
        found = findings(comparisons)
        write_page(comparisons, found, {n: what.title for n, what in NETWORKS.items()}, page)
    return page, found


def _check_neighbours(directory: Path, spec: Spec) -> None:
    """Refuse a directory with studies that cannot be compared with these."""
    for network, precision in itertools.product(NETWORKS, PRECISIONS):
        place = directory / f"{network}-{precision}"
        if (place / STORE_NAME).exists():
            other = parse_spec(str(Store.open(place).attributes["spec"])).spec
            alike = (other.study.seed, other.data, other.flow.t1, other.flow.saves)
            if alike != (spec.study.seed, spec.data, spec.flow.t1, spec.flow.saves):
                raise StoreError("holds results of another seed, data or protocol.", place)


class _Within:
    """Progress of one study among several."""

    def __init__(self, progress: Progress, study: str):
        self._progress, self._study = progress, study

    def say(self, text: str) -> None:
        self._progress.say(f"{self._study}, {text}")

    def stage(self, title: str, total: int, of: str = SAVED) -> AbstractContextManager[Stage]:
        return self._progress.stage(f"{self._study}, {title}", total, of)


def _carry_out(declaration: Declaration, directory: Path, progress: Progress) -> None:
    if not (directory / STORE_NAME).exists():
        run_declared(declaration, directory, progress)
    elif Store.open(directory).attributes["spec"] != declaration.text:
        raise StoreError(
            "holds results of other ratios, data or seed; choose another directory.", directory
        )
    else:
        resume_study(directory, progress)
    with Lock(directory):
        carry_out_sides(build(declaration), Store.open(directory))


def _spacing(folder: str | Path, protocol: Protocol) -> int:
    """Every fiftieth image of the whole of MNIST, or every one of a folder with just these."""
    if idx(folder, every=_EVERY).samples >= protocol.samples:
        return _EVERY
    if (found := idx(folder).samples) == protocol.samples:
        return 1
    raise ValueError(
        f"data: {folder} holds {found} images; the experiment takes {protocol.samples}, every"
        " fiftieth of the 60,000 of MNIST's training set (or a folder with just these)."
    )


def _declaration(
    what: Network,
    precision: str,
    folder: str | Path,
    every: int,
    ratios: Sequence[int],
    seed: int,
    protocol: Protocol,
) -> str:
    """The study, as one would have written it."""
    # The flow in float32 can be no better than its numbers.
    rtol = max(what.rtol, 5e-6 if precision == "float32" else 0.0)
    runs = [
        f'[[optimizers]]\nname = "eta-{ratio}"\nkind = "gradient_descent"\n'
        f"step_size = {protocol.step_size / ratio!r}\n"
        for ratio in (1, *ratios)
    ]
    return "\n".join(
        [
            f'[study]\nname = "{what.title}, {precision}"\nseed = {seed}\ndtype = "{precision}"\n',
            f'[data]\nkind = "idx"\nfolder = {json.dumps(str(Path(folder).resolve()))}\n'
            f"samples = {protocol.samples}\nevery = {every}\n",
            f"[network]\n{what.section}",
            '[loss]\nkind = "cross_entropy"\n',
            f"[flow]\nt1 = {protocol.step_size * protocol.steps!r}\nsaves = {protocol.looks}\n"
            f"rtol = {rtol!r}\n",
            *runs,
            "[curvature]\nmeasure = false\n",
            "[closeness]\npredict = true\ncertify = false\n",
            "[kernel]\npredict = false\n",
        ]
    )
