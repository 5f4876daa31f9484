"""What does not fit together in a study: data that are not there, networks they do not suit.

Looked at before anything is made: of data, only how many they are and of which shape.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.random as jr

from .. import datasets
from .._trees import tree_size
from ..datasets._digits import digits_sizes
from ..datasets._idx import idx_sizes
from ._consistency import Sections
from ._errors import FieldError
from ._memory_needed import MemoryNeeded, Sizes, memory_misfits, memory_needed, sizes_of
from ._network import make_network
from .spec import Section


@dataclass(frozen=True)
class DataShape:
    """How many samples there are, of which shape, and what is to be learnt of them.

    `classes` of integer labels, else `None`.
    """

    samples: int
    sample: tuple[int, ...]
    outputs: int
    classes: int | None

    @staticmethod
    def of(dataset: datasets.Dataset) -> "DataShape":
        """That of data that were loaded."""
        shape = dataset.inputs.shape
        return DataShape(shape[0], shape[1:], dataset.outputs, dataset.classes)


def misfits(sections: Sections, folder: Path, shape: DataShape | None = None) -> list[FieldError]:
    """Every mistake that only data show, as far as the sections are known.

    `shape` is that of data that were loaded; without it, it is told from headers where that is
    possible, which it is not for data that have to be fetched.
    """
    errors: list[FieldError] = []
    if shape is None and sections.sound("data"):
        try:
            with mistakes_in("data", sections["data"]):
                shape = _shape(sections["data"], folder)
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
            with mistakes_in("network", sections["network"]):
                params = network_shape(sections["network"], shape)
        except FieldError as error:
            errors.append(error)
        else:
            errors += _too_many_eigenvalues(sections, tree_size(params))
            if sections.know(("study", "dtype"), ("loss", "kind")):
                errors += memory_misfits(sections, _sizes(sections, shape, params))
    return errors


def network_shape(section: Any, shape: DataShape) -> Any:
    """The network with shapes in place of arrays."""
    return jax.eval_shape(
        lambda key: make_network(section, shape.sample, shape.outputs, key), jr.key(0)
    )


@contextmanager
def mistakes_in(name: str, section: Section) -> Iterator[None]:
    """Give what the library refuses its place in the study: "samples: ..." is `data.samples`."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        named = re.match(r"([a-z_]+): (.*)", str(error), re.DOTALL)
        if named and named[1] in type(section).model_fields:
            raise FieldError((name, named[1]), named[2]) from error
        raise FieldError((name,), str(error)) from error


def _shape(section: Any, folder: Path) -> DataShape | None:
    match section.kind:
        case "digits":
            samples, sample, classes = digits_sizes(section.samples)
            return DataShape(samples, sample, classes, classes)
        case "idx":
            samples, sample, classes = idx_sizes(
                folder / section.folder,
                samples=section.samples,
                every=section.every,
                split=section.split,
            )
            return DataShape(samples, sample, classes, classes)
        case "gaussian":
            return DataShape(section.samples, (section.features,), section.outputs, None)
    return None


def needed_by(sections: Sections, shape: DataShape) -> MemoryNeeded:
    """The memory that a whole study needs."""
    params = network_shape(sections["network"], shape)
    return memory_needed(sections, _sizes(sections, shape, params))


def _sizes(sections: Sections, shape: DataShape, params: Any) -> Sizes:
    labels = shape.classes is not None and sections["loss"].kind == "cross_entropy"
    return sizes_of(shape, params, sections["study"].dtype, labels)


def _too_many_eigenvalues(sections: Sections, parameters: int) -> Iterator[FieldError]:
    if not sections.know(*(("curvature", key) for key in ("measure", "largest", "smallest"))):
        return
    section = sections["curvature"]
    wanted = section.largest + section.smallest
    if section.measure and wanted > parameters:
        message = f"{wanted} eigenvalues of a Hessian of {parameters} parameters."
        yield FieldError(("curvature",), message)
