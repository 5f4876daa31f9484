"""What the key `flow` of an optimizer may declare: the flow that it is meant to discretise."""

import abc

from .._section import Section
from ._base import Flow


class FlowSection(Section):
    """A flow that a study can declare."""

    @abc.abstractmethod
    def make(self) -> Flow:
        """The flow."""
