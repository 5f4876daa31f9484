"""The declaration of a study: what its TOML file may say.

Every section is a class below, every key one of its fields; `declare` reads files.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ._consistency import Sections, inconsistencies
from ._errors import FieldErrors

_NAME = r"^[A-Za-z0-9_\-]+$"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# What is counted one by one; JAX does it with 32 bits where 64 are off.
Counted = Annotated[int, Field(ge=1, lt=2**31)]
# Layers: every one of them is a program for the compiler.
Widths = Annotated[list[Count], Field(max_length=1000)]
Name = Annotated[str, Field(pattern=_NAME)]
ActivationName = Literal["linear", "relu", "leaky_relu", "tanh", "softplus", "erf", "gelu"]


# Rows up to which a kernel is diagonalised without being asked to.
_ROWS = 3000


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
    widths: Widths = Field(default=[32])
    activation: ActivationName = "tanh"
    bias: bool = True
    init: Literal["xavier", "lecun", "he", "near_zero", "tangent_kernel", "uniform_fan_in"] = (
        "lecun"
    )


class ConvolutionalNetwork(Section):
    """`kind = "convolutional_strided"` or `"convolutional_pooled"`: square images only."""

    kind: Literal["convolutional_strided", "convolutional_pooled"]
    activation: ActivationName = "relu"
    channels: Widths = Field(default=[6, 16])
    widths: Widths = Field(default=[120, 84])


class LossSection(Section):
    """`[loss]`: squared error (labels become one-hot rows) or cross-entropy."""

    kind: Literal["squared_error", "cross_entropy"] = "squared_error"


class FlowSection(Section):
    """`[flow]`: how far every flow is followed, how many times are saved, how accurately."""

    t1: Positive
    saves: Annotated[int, Field(ge=1, le=100_000)] = 40
    rtol: Positive | None = None
    atol: Positive | None = None
    max_steps: Counted = 1_000_000


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
    max_products: Counted = 1000


class ClosenessSection(Section):
    """`[closeness]`: beside the measured distance, the predicted one and a certificate."""

    predict: bool = True
    certify: bool = True


class KernelSection(Section):
    """`[kernel]`: what the tangent kernel at the start predicts, and how far it moves."""

    predict: bool = True
    outputs: Literal["all", "each", "mean"] | None = None
    drift_samples: Count = 32

    def kind(self, samples: int, outputs: int) -> Literal["all", "each", "mean"] | None:
        """Which kernel is used: as asked for, else the largest that is quickly diagonalised."""
        if not self.predict or self.outputs is not None:
            return self.outputs if self.predict else None
        if samples * outputs <= _ROWS:
            return "all"
        return "mean" if samples <= _ROWS else None


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
    def _consistent(self) -> "Spec":
        if errors := inconsistencies(Sections.of(self)):
            raise FieldErrors(errors)
        return self

    @property
    def rtol(self) -> float:
        """The flows' relative tolerance: the one given, else one that suits the precision."""
        return self.flow.rtol or {"float64": 1e-7, "float32": 1e-5}[self.study.dtype]

    def run_names(self) -> list[str]:
        """The optimizers' names: those given, else their kinds."""
        return [run.name or run.kind for run in self.optimizers]
