"""The memory that a study needs, told before anything is made."""

from collections.abc import Iterator

import jax.numpy as jnp

from .._memory import in_words, machine_memory
from ._consistency import Sections
from ._errors import FieldError, written
from ._needs import SAMPLES, MemoryNeeded, Need, Sizes, need
from .stages import STAGES

# Copies of the inputs while they are made.
_MAKING = 2


def memory_needed(sections: Sections, sizes: Sizes) -> MemoryNeeded:
    """The memory of all stages of a study, as far as its sections are known."""
    making = (_MAKING - 1) * sizes.samples * sizes.features * jnp.result_type(float).itemsize
    stages = [need("reading the data", (making, SAMPLES))]
    for stage in STAGES:
        stages += stage.memory(sections, sizes)
    return MemoryNeeded(_data(sizes), tuple(stages))


def memory_misfits(sections: Sections, sizes: Sizes) -> Iterator[FieldError]:
    """What does not fit into the machine."""
    limit = machine_memory()
    needed = memory_needed(sections, sizes)
    if limit is not None and needed.peak > limit:
        parts = sorted((needed.data, *needed.stages), key=lambda part: -part.size)[:3]
        told = "; ".join(
            f"{part.stage}: {in_words(part.size)} ({', '.join(map(written, part.keys))})"
            for part in parts
        )
        yield FieldError(
            parts[0].keys[0],
            f"the study would take about {in_words(needed.peak)} of memory, but this machine has"
            f" {in_words(limit)}; most of it for {told}",
        )


def _data(sizes: Sizes) -> Need:
    """As they are read, and in the precision of the study where that is another one."""
    read = jnp.result_type(float).itemsize
    numbers = sizes.samples * (sizes.features + (1 if sizes.labels else sizes.outputs))
    held = read if read == sizes.itemsize else read + sizes.itemsize
    return need("data", (held * numbers, SAMPLES))
