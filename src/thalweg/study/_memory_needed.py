"""How much memory a study will need, stage by stage, told before anything is made.

Arrays of data, parameters and saved rows have sizes that are known; how many copies of them a stage
holds, and what its products need, was measured. `tests/test_memory_needed.py` compares the whole
with what a process really takes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import networks
from .._memory import in_words, machine_memory
from .._trees import tree_size
from ..curvature._wanted import Wanted, rows_needed
from ..kernels._empirical import MATRIX_MEMORY
from ..solvers import deflation_memory
from ._consistency import MOST_STEPS, Path, Sections
from ._errors import FieldError, written

# What Python, JAX and compiled programs take, whatever the study.
_BASE = 2**30
# Copies of the inputs while they are made.
_MAKING = 2
# In activations of all samples: what a gradient and a Hessian-vector product keep.
_GRADIENT, _PRODUCT = 2.0, 4.5
# Vectors like the parameters in the state of a flow and its companion: of first order, of second
# order (positions and velocities), with kinks for one order, and from `_LARGE` parameters on.
_FIRST, _SECOND, _KINKED, _LEAN, _LARGE = 54, 72, 12, 4, 2_000_000
# Copies of such a state while a step is made and the state is written down.
_STATES = 4
# Vectors of an optimizer.
_DESCENT = 8
# Copies of saved rows: while two trajectories are compared, while one is looked at, and while a
# law, which has two vectors in a row, is read.
_COMPARED, _READ, _LAW = 6, 3, 4
# Bytes for every step under a certificate.
_CERTIFIED = 28
# Copies of a kernel's matrix while it is diagonalised, and of what it predicts at saved times.
_DIAGONALISED, _PREDICTED = 6, 4
# Copies of the small kernels whose distance is measured.
_DRIFT = 3

# The keys by which a study is made smaller.
_SAMPLES: tuple[Path, ...] = (("data", "samples"),)
_WIDTHS: tuple[Path, ...] = (("network", "widths"),)
_ROWS: tuple[Path, ...] = (("flow", "saves"), *_WIDTHS)
_PRODUCTS: tuple[Path, ...] = (*_SAMPLES, *_WIDTHS)


class Need(NamedTuple):
    """The bytes that a stage takes beside the data, and the keys that make them many."""

    stage: str
    size: int
    keys: tuple[Path, ...]


@dataclass(frozen=True)
class MemoryNeeded:
    """What a study needs: the data from beginning to end, and beside them one stage at a time."""

    data: Need
    stages: tuple[Need, ...]

    @property
    def largest(self) -> Need:
        """The stage that takes most."""
        return max(self.stages, key=lambda need: need.size)

    @property
    def peak(self) -> int:
        """The most bytes at any time."""
        return _BASE + self.data.size + self.largest.size

    def told(self, on_disk: int) -> str:
        """One line for who starts the study."""
        limit = machine_memory()
        of = "" if limit is None else f" of {in_words(limit)}"
        return (
            f"memory: about {in_words(self.peak)}{of} at most ({in_words(_BASE)} for Python and"
            f" compiled programs, {in_words(self.data.size)} for the data,"
            f" {in_words(self.largest.size)} for {self.largest.stage}); on disk: about"
            f" {in_words(on_disk)} at most"
        )


class Sizes(NamedTuple):
    """The numbers that memory follows from; `activations` are those of one sample."""

    samples: int
    features: int
    outputs: int
    labels: bool
    parameters: int
    activations: int
    itemsize: int

    @property
    def vector(self) -> int:
        """Bytes of the parameters."""
        return self.parameters * self.itemsize

    @property
    def gradient(self) -> int:
        """Bytes that a gradient takes."""
        return self._of_activations(_GRADIENT) + self.vector

    @property
    def product(self) -> int:
        """Bytes that a Hessian-vector product takes."""
        return self._of_activations(_PRODUCT) + 2 * self.vector

    def _of_activations(self, copies: float) -> int:
        return int(2 * copies) * self.samples * self.activations * self.itemsize // 2


def sizes_of(shape: Any, params: Any, dtype: str, labels: bool) -> Sizes:
    """Those of data and of a network with shapes in place of arrays."""
    sample = jax.ShapeDtypeStruct((1, *shape.sample), jnp.result_type(float))
    layers = jax.make_jaxpr(networks.apply)(params, sample).eqns
    activations = sum(
        var.aval.size
        for layer in layers
        if layer.primitive.name in ("dot_general", "conv_general_dilated")
        for var in layer.outvars
    )
    return Sizes(
        samples=shape.samples,
        features=math.prod(shape.sample),
        outputs=shape.outputs,
        labels=labels,
        parameters=tree_size(params),
        activations=activations,
        itemsize=np.dtype(dtype).itemsize,
    )


def memory_needed(sections: Sections, sizes: Sizes) -> MemoryNeeded:
    """Of all stages of a study whose sections are known."""
    return MemoryNeeded(_data(sizes), tuple(_stages(sections, sizes)))


def memory_misfits(sections: Sections, sizes: Sizes) -> Iterator[FieldError]:
    """What does not fit into the machine, or into the room that a stage allows itself."""
    limit = machine_memory()
    needed = memory_needed(sections, sizes)
    if limit is not None and needed.peak > limit:
        parts = sorted((needed.data, *needed.stages), key=lambda need: -need.size)[:3]
        told = "; ".join(
            f"{part.stage}: {in_words(part.size)} ({', '.join(map(written, part.keys))})"
            for part in parts
        )
        yield FieldError(
            parts[0].keys[0],
            f"the study would take about {in_words(needed.peak)} of memory, but this machine has"
            f" {in_words(limit)}; most of it for {told}",
        )
    if not sections.sound("kernel"):
        return
    kind = sections["kernel"].kind(sizes.samples, sizes.outputs)
    matrix = _kernel_matrix(kind, sizes)
    if matrix > MATRIX_MEMORY:
        smaller = "" if kind == "mean" else ', take "mean",'
        yield FieldError(
            ("kernel", "outputs"),
            f"the matrix of {kind!r} has {in_words(matrix)}, more than the"
            f" {in_words(MATRIX_MEMORY)} that it may have; take fewer samples{smaller} or set"
            " `predict = false`",
        )


def _has_kinks(network: Any) -> bool:
    smooth = networks.ACTIVATIONS[network.activation].smooth
    return not smooth or network.kind == "convolutional_pooled"


def _need(stage: str, *terms: tuple[int, tuple[Path, ...]]) -> Need:
    """The sum of sizes, with the keys of the largest first."""
    ordered = sorted(terms, key=lambda term: -term[0])
    keys = dict.fromkeys(key for size, keys in ordered if size > 0 for key in keys)
    return Need(stage, sum(size for size, _ in terms), tuple(keys) or ordered[0][1])


def _data(sizes: Sizes) -> Need:
    """As they are read, and in the precision of the study where that is another one."""
    read = jnp.result_type(float).itemsize
    numbers = sizes.samples * (sizes.features + (1 if sizes.labels else sizes.outputs))
    held = read if read == sizes.itemsize else read + sizes.itemsize
    return _need("data", (held * numbers, _SAMPLES))


def _stages(sections: Sections, sizes: Sizes) -> Iterator[Need]:
    kinks = _has_kinks(sections["network"])
    read = jnp.result_type(float).itemsize
    making = (_MAKING - 1) * sizes.samples * sizes.features * read
    yield _need("reading the data", (making, _SAMPLES))
    runs = [run for i, run in sections.runs() if sections.know(("optimizers", i, "kind"))]
    first = all(run.kind == "gradient_descent" for run in runs)
    state = _STATES * _flow_size(sizes, first, kinks)
    gradient, product = (sizes.gradient, _PRODUCTS), (sizes.product, _PRODUCTS)
    yield _need("flows", (state, _WIDTHS), gradient)
    yield _need("optimizers", (_DESCENT * sizes.vector, _WIDTHS), gradient)
    if not sections.sound("flow", "closeness", "curvature", "kernel", "optimizers"):
        return
    flow, closeness = sections["flow"], sections["closeness"]
    curvature, kernel = sections["curvature"], sections["kernel"]
    rows = (flow.saves + 1) * sizes.vector
    # A flow is saved at the times of every optimizer that discretises it.
    most = max(1, len(runs))
    yield _need("comparisons", ((_COMPARED + _READ * most) * rows, _ROWS), product)
    if closeness.predict and not kinks:
        # A law is a flow in twice as many dimensions, and followed as such.
        law = _STATES * _flow_size(sizes, first, kinks, copies=2)
        yield _need("predicted distances", (law, _WIDTHS), product, (_LAW * 2 * rows, _ROWS))
    steps = [
        (flow.t1 / run.step_size, ("optimizers", i, "step_size"))
        for i, run in sections.runs()
        # More are refused anyway.
        if run.kind == "gradient_descent" and flow.t1 / run.step_size <= MOST_STEPS
    ]
    if closeness.certify and steps and not kinks:
        most_steps, key = max(steps)
        yield _need(
            "certificates",
            (int(_CERTIFIED * most_steps), (key, ("flow", "t1"))),
            (_READ * rows, _ROWS),
            (_basis(Wanted(0, 1), sizes), _WIDTHS),
            product,
        )
    if curvature.measure:
        basis = _basis(Wanted(curvature.largest, curvature.smallest), sizes)
        wanted = (("curvature", "largest"), ("curvature", "smallest"), *_WIDTHS)
        yield _need("curvature", (basis, wanted), product, (most * rows, _ROWS))
    kind = kernel.kind(sizes.samples, sizes.outputs)
    if kind is not None:
        predicted = (flow.saves + 1) * sizes.samples * sizes.outputs * sizes.itemsize
        some = min(kernel.drift_samples, sizes.samples) * sizes.outputs
        yield _need(
            "the kernel",
            (_DIAGONALISED * _kernel_matrix(kind, sizes), (*_SAMPLES, ("kernel", "outputs"))),
            (_PREDICTED * predicted, (("flow", "saves"), *_SAMPLES)),
            (_DRIFT * some**2 * sizes.itemsize, (("kernel", "drift_samples"),)),
            (_READ * rows, _ROWS),
            product,
        )


def _flow_size(sizes: Sizes, first: bool, kinks: bool, copies: int = 1) -> int:
    """Bytes of the state of a flow and of its companion."""
    if copies * sizes.parameters >= _LARGE and first and not kinks:
        return copies * _LEAN * sizes.vector
    if kinks:
        return _KINKED * (1 if first else 2) * sizes.vector
    kept = 2 * deflation_memory(copies * sizes.parameters)
    return copies * (_FIRST if first else _SECOND) * sizes.vector + kept


def _basis(wanted: Wanted, sizes: Sizes) -> int:
    """The vectors of a Lanczos search and their images, and a third more while it restarts."""
    return 3 * rows_needed(wanted, sizes.parameters) * sizes.vector


def _kernel_matrix(kind: str | None, sizes: Sizes) -> int:
    copies = {"all": sizes.outputs**2, "each": sizes.outputs, "mean": 1, None: 0}[kind]
    return copies * sizes.samples**2 * sizes.itemsize
