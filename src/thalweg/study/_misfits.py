"""What does not fit together in a study: data that are not there, networks they do not suit.

Looked at before anything is made: of data, only how many they are and of which shape.
"""

from pathlib import Path
from typing import Any

import jax
import jax.random as jr

from ..datasets import DataShape
from ..networks import NetworkSection
from ._consistency import Sections
from ._errors import FieldError, mistakes_in
from ._memory_needed import memory_misfits, memory_needed
from ._needs import MemoryNeeded, Sizes, sizes_of
from .stages import STAGES


def misfits(sections: Sections, folder: Path, shape: DataShape | None = None) -> list[FieldError]:
    """Every mistake that only data show, as far as the sections are known.

    `shape` is that of data that were loaded; without it, it is told from headers where that is
    possible, which it is not for data that have to be fetched.
    """
    errors: list[FieldError] = []
    if shape is None and sections.sound("data"):
        try:
            with mistakes_in(("data",), sections["data"]):
                shape = sections["data"].shape(folder)
        except FieldError as error:
            errors.append(error)
    if shape is None:
        return errors
    if sections.know(("loss", "kind")):
        cross = sections["loss"].kind == "cross_entropy"
        if cross and shape.classes is None:
            message = "cross_entropy needs data with class labels."
            errors.append(FieldError(("loss", "kind"), message))
    if sections.sound("network"):
        try:
            with mistakes_in(("network",), sections["network"]):
                params = network_shape(sections["network"], shape)
        except FieldError as error:
            errors.append(error)
        else:
            # What is not known yet is as it would be without being said.
            dtype = sections["study"].dtype if sections.know(("study", "dtype")) else "float64"
            cross = sections.know(("loss", "kind")) and sections["loss"].kind == "cross_entropy"
            sizes = sizes_of(shape, params, dtype, shape.classes is not None and cross)
            for stage in STAGES:
                errors += stage.misfits(sections, shape, sizes)
            if sections.know(("study", "dtype"), ("loss", "kind")):
                errors += memory_misfits(sections, sizes)
    return errors


def network_shape(section: NetworkSection, shape: DataShape) -> Any:
    """The network with shapes in place of arrays."""
    return jax.eval_shape(lambda key: section.draw(shape.sample, shape.outputs, key), jr.key(0))


def needed_by(sections: Sections, shape: DataShape) -> MemoryNeeded:
    """The memory that a whole study needs."""
    params = network_shape(sections["network"], shape)
    return memory_needed(sections, _sizes(sections, shape, params))


def _sizes(sections: Sections, shape: DataShape, params: Any) -> Sizes:
    labels = shape.classes is not None and sections["loss"].kind == "cross_entropy"
    return sizes_of(shape, params, sections["study"].dtype, labels)
