"""The declaration of a study: what its TOML file may say.

Every section is a class below, every key one of its fields. `load_spec` reads a file, `parse_spec`
a text; both raise `SpecError` with the line, the field and the nearest valid name.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .._names import nearest
from ._errors import SpecError
from ._lines import line_of

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")]
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
    rtol: Positive = 1e-7
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

    largest: Annotated[int, Field(ge=1, le=50)] = 1
    smallest: Annotated[int, Field(ge=1, le=50)] = 1
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    max_products: Count = 1000


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

    @model_validator(mode="after")
    def _names_differ(self) -> "Spec":
        names = self.run_names()
        for i, name in enumerate(names):
            if _FLOW_NAME.fullmatch(name):
                # Curvature is stored by name, for flows and optimizers side by side.
                raise _At(("optimizers", i, "name"), f"{name!r} is the name of a flow")
            if name in names[:i]:
                raise _At(("optimizers", i), f"a second optimizer is called {name!r}; give `name`s")
        return self

    @model_validator(mode="after")
    def _tolerance_is_possible(self) -> "Spec":
        floor = _FLOOR[self.study.dtype]
        if self.flow.rtol < floor:
            raise _At(
                ("flow", "rtol"),
                f"{self.flow.rtol:g} is more than {self.study.dtype} can give (at least {floor:g})",
            )
        return self

    @model_validator(mode="after")
    def _steps_fit_the_horizon(self) -> "Spec":
        for i, run in enumerate(self.optimizers):
            steps = self.flow.t1 / time_per_step(run)
            if steps < 2:
                raise _At(
                    ("optimizers", i, "step_size"),
                    f"{run.step_size:g} makes a step of {time_per_step(run):g} of time, so that"
                    f" fewer than 2 steps fit into t1 = {self.flow.t1:g}",
                )
            if steps > 1e9:
                raise _At(
                    ("optimizers", i, "step_size"),
                    f"{run.step_size:g} takes {steps:.2g} steps to reach t1 = {self.flow.t1:g}",
                )
        return self

    def run_names(self) -> list[str]:
        """The optimizers' names: those given, else their kinds."""
        return [run.name or run.kind for run in self.optimizers]


def time_per_step(run: Any) -> float:
    """Flow time of one step: the step size of gradient descent, its root with momentum."""
    return run.step_size if run.kind == "gradient_descent" else run.step_size**0.5


class _At(ValueError):
    """A mistake found after parsing, with the path of the field that it is about."""

    def __init__(self, path: tuple[str | int, ...], message: str):
        super().__init__(message)
        self.path = path


def load_spec(path: str | Path) -> tuple[Spec, str]:
    """Read a study from a TOML file; returns it with the text.

    **Raises:** SpecError for a file that cannot be read or a mistake in it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("there is no such file", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error})", str(path)) from error
    return parse_spec(text, str(path)), text


def parse_spec(text: str, source: str = "study") -> Spec:
    """Read a study from TOML text. `source` names it in error messages.

    **Raises:** SpecError with the line and the field of the first mistake.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(match[1]) if match else None
        message = re.sub(r" \(at .*\)", "", str(error))
        raise SpecError(f"not valid TOML: {message}", source, line) from None
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        path, message = _explain(error.errors()[0], raw)
        field = _written(path)
        raise SpecError(f"{field}: {message}", source, line_of(text, path)) from None


def _written(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "study"


def _explain(error: Any, raw: dict) -> tuple[tuple[str | int, ...], str]:
    """The path of a mistake in the file, and a sentence about it."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, _At):
        return cause.path, str(cause)
    path, value = _path_in_file(error["loc"], raw)
    kind = error["type"]
    if kind == "missing":
        return path, "is missing"
    if kind == "extra_forbidden":
        valid = _valid_keys(path[:-1], raw)
        return path, f"unknown name{nearest(str(path[-1]), valid)} (valid: {', '.join(valid)})"
    if kind == "union_tag_not_found":
        return (*path, "kind"), "is missing"
    if kind == "union_tag_invalid":
        given = error["ctx"]["tag"]
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        hint = f"unknown kind {given!r}{nearest(given, valid)} (valid: {', '.join(valid)})"
        return (*path, "kind"), hint
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = nearest(str(value), valid)
        return path, f"unknown value {value!r}{hint} (valid: {', '.join(valid)})"
    message = error["msg"][0].lower() + error["msg"][1:]
    return path, f"{message.replace('input should', 'should')}, got {value!r}"


def _path_in_file(location: tuple, raw: Any) -> tuple[tuple[str | int, ...], Any]:
    """Drop the names of union members, which pydantic mixes into the path."""
    path: list[str | int] = []
    value: Any = raw
    for i, part in enumerate(location):
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif i < len(location) - 1 or isinstance(part, int):
            continue
        else:
            value = None
        path.append(part)
    return tuple(path), value


def _valid_keys(path: tuple[str | int, ...], raw: dict) -> list[str]:
    """The keys that the table at `path` may have."""
    if not path:
        return list(Spec.model_fields)
    annotation: Any = Spec.model_fields[str(path[0])].annotation
    members = [m for m in _classes(annotation) if issubclass(m, Section)]
    value: Any = raw
    for part in path:
        value = value[part]
    if isinstance(value, dict) and "kind" in value and len(members) > 1:
        chosen = [
            m for m in members if value["kind"] in get_args(m.model_fields["kind"].annotation)
        ]
        members = chosen or members
    return sorted({key for m in members for key in m.model_fields})


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [c for part in get_args(annotation) for c in _classes(part)]
