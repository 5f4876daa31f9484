"""The declaration of a study: what its TOML file may say.

Every section is a class, every key one of its fields; the sections of data, networks and optimizers
stand with what they declare, those of stages with their stage. `declare` reads files.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .. import datasets, networks, optimizers
from .._section import OneOf, Section
from ..datasets import DataSection
from ..networks import NetworkSection
from ..optimizers import OptimizerSection
from ._consistency import Sections, inconsistencies
from ._errors import FieldErrors
from .stages.curvature import CurvatureSection
from .stages.flows import FlowsSection
from .stages.kernel import KernelSection
from .stages.laws import ClosenessSection
from .stages.observables import ObservablesSection


class StudySection(Section):
    """`[study]`: the name, the seed of everything random, and the precision."""

    name: Annotated[str, Field(min_length=1, max_length=80)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dtype: Literal["float64", "float32"] = "float64"


class LossSection(Section):
    """`[loss]`: squared error (labels become one-hot rows) or cross-entropy."""

    kind: Literal["squared_error", "cross_entropy"] = "squared_error"


RunSection = Annotated[OptimizerSection, OneOf(optimizers)]


class Spec(Section):
    """A whole study.

        from thalweg import datasets, networks, optimizers, study

        spec = study.Spec(
            data=datasets.DigitsSection(samples=50),
            network=networks.FullyConnectedSection(widths=[8]),
            flow=study.FlowsSection(t1=1.0),
            optimizers=[optimizers.GradientDescentSection(step_size=0.01)],
        )
        study.run_study(spec, "out")

    **Raises:** pydantic's ValidationError, a ValueError, for keys that are wrong or contradict each
    other.
    """

    study: StudySection = StudySection()
    data: Annotated[DataSection, OneOf(datasets)]
    network: Annotated[NetworkSection, OneOf(networks)]
    loss: LossSection = LossSection()
    flow: FlowsSection
    optimizers: Annotated[list[RunSection], Field(min_length=1)]
    observables: ObservablesSection = ObservablesSection()
    curvature: CurvatureSection = CurvatureSection()
    closeness: ClosenessSection = ClosenessSection()
    kernel: KernelSection = KernelSection()

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if errors := inconsistencies(Sections.of(self)):
            raise FieldErrors(errors)
        return self

    @property
    def rtol(self) -> float:
        """The flows' relative tolerance: the one given, else one that suits the precision."""
        return self.flow.rtol or {"float64": 1e-7, "float32": 1e-5}[self.study.dtype]
