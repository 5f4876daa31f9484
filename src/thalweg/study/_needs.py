"""How much memory things take: arrays of known sizes, and how many copies of them a stage holds.

The numbers of copies were measured; `tests/test_memory_needed.py` compares the whole with what a
process really takes.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import networks
from .._memory import in_words, machine_memory
from .._trees import tree_size
from ..curvature._wanted import Wanted, rows_needed
from ..solvers import deflation_memory
from ._consistency import Path

# What Python, JAX and compiled programs take, whatever the study.
BASE = 2**30
# In activations of all samples: what a gradient and a Hessian-vector product keep.
_GRADIENT, _PRODUCT = 2.0, 4.5
# Vectors like the parameters in the state of a flow and its companion: of first order, of second
# order (positions and velocities), with kinks for one order, and from `_LARGE` parameters on.
_FIRST, _SECOND, _KINKED, _LEAN, _LARGE = 54, 72, 12, 4, 2_000_000
# Copies of such a state while a step is made and the state is written down.
STATES = 4
# Copies of saved rows while one trajectory is looked at.
READ = 3

# The keys by which a study is made smaller.
SAMPLES: tuple[Path, ...] = (("data", "samples"),)
WIDTHS: tuple[Path, ...] = (("network", "widths"),)
ROWS: tuple[Path, ...] = (("flow", "saves"), *WIDTHS)
PRODUCTS: tuple[Path, ...] = (*SAMPLES, *WIDTHS)


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
        return BASE + self.data.size + self.largest.size

    def told(self, on_disk: int) -> str:
        """One line for who starts the study."""
        limit = machine_memory()
        of = "" if limit is None else f" of {in_words(limit)}"
        return (
            f"memory: about {in_words(self.peak)}{of} at most ({in_words(BASE)} for Python and"
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
    """The sizes of data and of a network with shapes in place of arrays."""
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


def need(stage: str, *terms: tuple[int, tuple[Path, ...]]) -> Need:
    """The sum of sizes, with the keys of the largest first."""
    ordered = sorted(terms, key=lambda term: -term[0])
    keys = dict.fromkeys(key for size, keys in ordered if size > 0 for key in keys)
    return Need(stage, sum(size for size, _ in terms), tuple(keys) or ordered[0][1])


def basis(wanted: Wanted, sizes: Sizes) -> int:
    """The vectors of a Lanczos search and their images, and a third more while it restarts."""
    return 3 * rows_needed(wanted, sizes.parameters) * sizes.vector


def flow_size(sizes: Sizes, first: bool, kinks: bool, copies: int = 1) -> int:
    """Bytes of the state of a flow, of first order or not, and of its companion."""
    if copies * sizes.parameters >= _LARGE and first and not kinks:
        return copies * _LEAN * sizes.vector
    if kinks:
        return _KINKED * (1 if first else 2) * sizes.vector
    kept = 2 * deflation_memory(copies * sizes.parameters)
    return copies * (_FIRST if first else _SECOND) * sizes.vector + kept
