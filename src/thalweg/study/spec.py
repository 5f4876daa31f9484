"""The declaration of a study: what its TOML file may say.

Every section is a class below, every key one of its fields; `declare` reads files.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._errors import FieldError

_NAME = r"^[A-Za-z0-9_\-]+$"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=_NAME)]
ActivationName = Literal["linear", "relu", "leaky_relu", "tanh", "softplus", "erf", "gelu"]

# Smallest relative tolerances that the dtypes can give; see `integrate`.
_FLOOR = {"float64": 2.3e-15, "float32": 1.2e-6}
_FLOW_NAME = re.compile(r"(gradient|heavy_ball|nesterov)_flow(_\d+)?")


class Section(BaseModel):
    """One table of the TOML file: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Study(Section):
    """`[study]`: the name, the seed of everything random, and the precision."""

    name: Annotated[str, Field(min_length=1, max_length=80)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dtype: Literal["float64", "float32"] = "float64"


class DigitsData(Section):
    """`kind = "digits"`: scikit-learn's 8 x 8 digits; no download."""

    kind: Literal["digits"]
    samples: Count | None = None
    standardise: bool = False


class IdxData(Section):
    """`kind = "idx"`: a folder of IDX files (MNIST, Fashion-MNIST)."""

    kind: Literal["idx"]
    folder: str
    samples: Count | None = None
    every: Count = 1
    split: Literal["train", "test"] = "train"
    mean: float = 0.1307
    deviation: Positive = 0.3081


class OpenMLData(Section):
    """`kind = "openml"`: a data set of openml.org by name; needs to be online."""

    kind: Literal["openml"]
    name: str
    version: Count | None = None
    samples: Count | None = None
    standardise: bool = True


class GaussianData(Section):
    """`kind = "gaussian"`: Gaussian inputs labelled by a teacher with one hidden layer."""

    kind: Literal["gaussian"]
    samples: Count
    features: Count
    hidden: Count = 4
    outputs: Count = 1
    activation: ActivationName = "relu"
    noise: Annotated[float, Field(ge=0)] = 0.0


class FullyConnectedNetwork(Section):
    """`kind = "fully_connected"`: hidden widths, activation, biases, initialisation."""

    kind: Literal["fully_connected"]
    widths: list[Count] = Field(default=[32])
    activation: ActivationName = "tanh"
    bias: bool = True
    init: Literal["xavier", "lecun", "he", "near_zero", "tangent_kernel", "uniform_fan_in"] = (
        "lecun"
    )


class ConvolutionalNetwork(Section):
    """`kind = "convolutional_strided"` or `"convolutional_pooled"`: square images only."""

    kind: Literal["convolutional_strided", "convolutional_pooled"]
    activation: ActivationName = "relu"
    channels: list[Count] = Field(default=[6, 16])
    widths: list[Count] = Field(default=[120, 84])


class LossSection(Section):
    """`[loss]`: squared error (labels become one-hot rows) or cross-entropy."""

    kind: Literal["squared_error", "cross_entropy"] = "squared_error"


class FlowSection(Section):
    """`[flow]`: how far every flow is followed, how many times are saved, how accurately."""

    t1: Positive
    saves: Annotated[int, Field(ge=1, le=100_000)] = 40
    rtol: Positive | None = None
    atol: Positive | None = None
    max_steps: Count = 1_000_000


class GradientDescentRun(Section):
    """`kind = "gradient_descent"`: its clock runs at `step_size` per step."""

    kind: Literal["gradient_descent"]
    name: Name | None = None
    step_size: Positive


class HeavyBallRun(Section):
    """`kind = "heavy_ball"`: its clock runs at `sqrt(step_size)` per step."""

    kind: Literal["heavy_ball"]
    name: Name | None = None
    step_size: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]


class NesterovRun(Section):
    """`kind = "nesterov"`: momentum (k-1)/(k+damping-1); clock `sqrt(step_size)` per step."""

    kind: Literal["nesterov"]
    name: Name | None = None
    step_size: Positive
    damping: Positive = 3.0


class NesterovConstantRun(Section):
    """`kind = "nesterov_constant"`: constant momentum; clock `sqrt(step_size)` per step."""

    kind: Literal["nesterov_constant"]
    name: Name | None = None
    step_size: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]


class CurvatureSection(Section):
    """`[curvature]`: Hessian eigenvalues along every flow and every run."""

    measure: bool = True
    largest: Annotated[int, Field(ge=1, le=50)] = 1
    smallest: Annotated[int, Field(ge=1, le=50)] = 1
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    max_products: Count = 1000


class ClosenessSection(Section):
    """`[closeness]`: beside the measured distance, the predicted one and a certificate."""

    predict: bool = True
    certify: bool = True


class KernelSection(Section):
    """`[kernel]`: what the tangent kernel at the start predicts, and how far it moves."""

    predict: bool = True
    outputs: Literal["all", "each", "mean"] | None = None
    drift_samples: Count = 32


DataSection = Annotated[
    DigitsData | IdxData | OpenMLData | GaussianData, Field(discriminator="kind")
]
NetworkSection = Annotated[
    FullyConnectedNetwork | ConvolutionalNetwork, Field(discriminator="kind")
]
RunSection = Annotated[
    GradientDescentRun | HeavyBallRun | NesterovRun | NesterovConstantRun,
    Field(discriminator="kind"),
]


class Spec(Section):
    """A whole study."""

    study: Study = Study()
    data: DataSection
    network: NetworkSection
    loss: LossSection = LossSection()
    flow: FlowSection
    optimizers: Annotated[list[RunSection], Field(min_length=1)]
    curvature: CurvatureSection = CurvatureSection()
    closeness: ClosenessSection = ClosenessSection()
    kernel: KernelSection = KernelSection()

    @model_validator(mode="after")
    def _names_differ(self) -> "Spec":
        names = self.run_names()
        for i, name in enumerate(names):
            if _FLOW_NAME.fullmatch(name):
                # Curvature is stored by name, for flows and optimizers side by side.
                raise FieldError(("optimizers", i, "name"), f"{name!r} is the name of a flow")
            if name in names[:i]:
                raise FieldError(
                    ("optimizers", i), f"a second optimizer is called {name!r}; give `name`s"
                )
        return self

    @model_validator(mode="after")
    def _tolerance_is_possible(self) -> "Spec":
        floor = _FLOOR[self.study.dtype]
        if self.flow.rtol is not None and self.flow.rtol < floor:
            raise FieldError(
                ("flow", "rtol"),
                f"{self.flow.rtol:g} is finer than {self.study.dtype} can give (at least"
                f" {floor:g})",
            )
        return self

    @model_validator(mode="after")
    def _steps_fit_the_horizon(self) -> "Spec":
        for i, run in enumerate(self.optimizers):
            steps = self.flow.t1 / time_per_step(run)
            if steps < 2:
                raise FieldError(
                    ("optimizers", i, "step_size"),
                    f"{run.step_size:g} makes a step of {time_per_step(run):g} of time, so that"
                    f" fewer than 2 steps fit into t1 = {self.flow.t1:g}",
                )
            if steps > 1e9:
                raise FieldError(
                    ("optimizers", i, "step_size"),
                    f"{run.step_size:g} takes {steps:.2g} steps to reach t1 = {self.flow.t1:g}",
                )
        return self

    @property
    def rtol(self) -> float:
        """The flows' relative tolerance: the one given, else one that suits the precision."""
        return self.flow.rtol or {"float64": 1e-7, "float32": 1e-5}[self.study.dtype]

    def run_names(self) -> list[str]:
        """The optimizers' names: those given, else their kinds."""
        return [run.name or run.kind for run in self.optimizers]


def time_per_step(run: Any) -> float:
    """Flow time of one step: the step size of gradient descent, its root with momentum."""
    return run.step_size if run.kind == "gradient_descent" else run.step_size**0.5
