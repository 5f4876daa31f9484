"""What a table `[[optimizers]]` of a study may declare."""

import abc
from typing import ClassVar

from .._numbers import described
from .._section import Name, Section, kinds
from ._base import Optimizer


class OptimizerSection(Section):
    """An optimizer that a study can declare."""

    name: Name | None = None
    # The key that the time of a step follows from.
    clock: ClassVar[str] = "step_size"

    @abc.abstractmethod
    def make(self) -> Optimizer:
        """The optimizer.

        **Raises:** what its class raises.
        """

    @abc.abstractmethod
    def time_of_step(self) -> float:
        """The flow time of one step, from no other keys than those that it follows from."""

    @property
    def known_as(self) -> str:
        """The name of the run: the one given, else the kind."""
        return self.name or kinds(type(self))[0]

    @property
    def label(self) -> str:
        """The method, for people."""
        return self.make().name

    @property
    def written(self) -> str:
        """The method with its numbers, as one would make it in Python."""
        return described(self.make())
