"""What the table `[data]` of a study may declare."""

import abc
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import PRNGKeyArray

from .._section import Section
from ._dataset import Dataset


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
    def of(dataset: Dataset) -> "DataShape":
        """The shape of data that were loaded."""
        shape = dataset.inputs.shape
        return DataShape(shape[0], shape[1:], dataset.outputs, dataset.classes)


class DataSection(Section):
    """Data that a study can declare."""

    def shape(self, folder: Path) -> DataShape | None:
        """The shape of the data, from headers alone; `None` where these do not tell.

        Relative paths start from `folder`.

        **Raises:** what loading them raises.
        """
        return None

    @abc.abstractmethod
    def load(self, folder: Path, key: PRNGKeyArray) -> Dataset:
        """The data.

        **Raises:** what the package's function of that name raises.
        """
