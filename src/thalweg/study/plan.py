"""What a study declares, made: data, network, flows, runs, and when they are looked at."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import PyTree

from ..datasets import Dataset
from ..flows import Flow
from ..objectives import Objective
from ..optimizers import Optimizer, OptimizerSection
from ._needs import MemoryNeeded

if TYPE_CHECKING:
    from .spec import Spec


@dataclass(frozen=True)
class PlannedFlow:
    """A flow and the times to save it at."""

    name: str
    flow: Flow
    times: np.ndarray


@dataclass(frozen=True)
class PlannedRun:
    """An optimizer as it was declared, the steps to save it at, and the name of the flow that it
    discretises, `None` where none is known.
    """

    name: str
    declared: OptimizerSection
    optimizer: Optimizer
    save_steps: np.ndarray
    flow: str | None

    @property
    def times(self) -> np.ndarray:
        """The flow times of the saved steps."""
        return self.save_steps * self.optimizer.time_per_step


@dataclass(frozen=True)
class Plan:
    """Everything that a study computes with; `classes` are those of the data's labels."""

    spec: "Spec"
    dataset: Dataset
    objective: Objective
    params: PyTree
    flows: list[PlannedFlow]
    runs: list[PlannedRun]
    memory: MemoryNeeded
    classes: int | None

    def flow_of(self, run: PlannedRun) -> PlannedFlow | None:
        """The flow that a run is compared with."""
        return next((flow for flow in self.flows if flow.name == run.flow), None)
