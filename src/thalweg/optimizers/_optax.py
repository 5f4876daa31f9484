"""Any optax transformation as an optimizer."""

import inspect
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from .. import flows
from .._checks import check_positive
from .._names import look_up
from .._section import OneOf, Positive
from ..flows import Flow, FlowSection
from ._base import Optimizer
from ._section import OptimizerSection


class Optax(Optimizer):
    """An optimizer that makes the updates of an optax gradient transformation.

        optimizer = tw.Optax(optax.sgd(1e-2), time_per_step=1e-2, flow=tw.GradientFlow())

    The library does not know which flow a transformation discretises. What depends on it takes the
    two arguments at their word: `time_per_step` is the property of that name, and `limit()` returns
    `flow` or raises ValueError. `tw.predicted_run` reads the steps themselves and applies to chains
    whose steps are linear in gradients and parameters and the same for every parameter (plain,
    momentum and weight decay, with any schedule), but not to Adam or clipping. `tw.predicted_rate`
    and `tw.predicted_distance` apply to no transformation: use `GradientDescent`, `HeavyBall` or
    `NesterovConstant` in place of `optax.sgd`.

    optax makes transformations of closures, which Python cannot pickle. To use another process,
    pass what the transformation is made from, and make it there.

    **Arguments:**

    - `transformation`: an `optax.GradientTransformation`, for instance `optax.adam(1e-3)`.
    - `time_per_step`: the flow time that one step takes, which says where iterates stand on the
        clock; 1 by default, so that time counts steps.
    - `flow`: the flow that it discretises, if one is meant; `None` by default.

    **Raises:** TypeError for something that is not a gradient transformation; ValueError for a
    `time_per_step` that is not positive.
    """

    transformation: Any
    flow: Flow | None
    name: ClassVar[str] = "optax"
    _time_per_step: float

    def __init__(
        self, transformation: Any, *, time_per_step: float = 1.0, flow: Flow | None = None
    ):
        self.transformation = transformation
        self.flow = flow
        self._time_per_step = time_per_step

    @property
    def time_per_step(self):
        return float(self._time_per_step)

    def __check_init__(self):
        for method in ("init", "update"):
            if not callable(getattr(self.transformation, method, None)):
                raise TypeError(
                    "transformation: expected an optax.GradientTransformation, got"
                    f" {type(self.transformation).__name__}."
                )
        check_positive(self._time_per_step, "time_per_step")

    def init(self, params):
        return self.transformation.init(params)

    def update(self, k, params, state, gradient):
        updates, state = self.transformation.update(gradient(params), state, params)
        return jax.tree.map(lambda x, u: x + u.astype(x.dtype), params, updates), state

    def limit(self):
        if self.flow is None:
            raise ValueError(
                "flow: the library does not know which flow this optax transformation discretises."
                " If you do, say so when you make the optimizer:"
                " `Optax(transformation, time_per_step=..., flow=...)`."
            )
        return self.flow

    def response(self, eigenvalue, step):
        """Run on the modes themselves, one by one."""
        eigenvalue, step = np.broadcast_arrays(np.asarray(eigenvalue, float), step)
        results = [
            self._run(float(ev), int(n)) for ev, n in zip(eigenvalue.flat, step.flat, strict=True)
        ]
        return np.asarray(results).reshape(eigenvalue.shape)

    def _run(self, eigenvalue: float, steps: int) -> float:
        def body(k, carry):
            x, state = carry
            return self.update(k, x, state, lambda p: eigenvalue * p)

        x = jnp.ones(())
        return float(jax.lax.fori_loop(0, steps, body, (x, self.init(x)))[0])


class OptaxSection(OptimizerSection):
    """`kind = "optax"`: any of optax's methods by name, with its arguments.

    `time_per_step` is its `learning_rate` unless given. Without a `flow` the run is compared with
    none.
    """

    kind: Literal["optax"] = "optax"
    transformation: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    arguments: dict[str, bool | int | float | str] = Field(default={})
    time_per_step: Positive | None = None
    flow: Annotated[FlowSection, OneOf(flows)] | None = None
    clock: ClassVar[str] = "time_per_step"

    def time_of_step(self) -> float:
        clock = self.time_per_step or self.arguments.get("learning_rate")
        if not isinstance(clock, int | float) or isinstance(clock, bool) or not clock > 0:
            raise ValueError(
                "time_per_step: is missing; the time that a step takes is the `learning_rate` among"
                " the `arguments`, or is given here."
            )
        return float(clock)

    def make(self) -> Optax:
        flow = None if self.flow is None else self.flow.make()
        return Optax(self._transformation(), time_per_step=self.time_of_step(), flow=flow)

    def _transformation(self) -> Any:
        method = look_up(self.transformation, _methods(), "transformation")
        valid = [name for name in inspect.signature(method).parameters if name != "kwargs"]
        for name in self.arguments:
            look_up(name, dict.fromkeys(valid), "arguments")
        try:
            return method(**self.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments: {error}.") from error

    @property
    def known_as(self) -> str:
        return self.name or self.transformation

    @property
    def label(self) -> str:
        return self.transformation

    @property
    def written(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"optax.{self.transformation}({given})"


def _methods() -> dict[str, Any]:
    """The functions of optax that make whole methods: those with a learning rate."""
    try:
        import optax
    except ImportError as error:
        raise ValueError(
            "kind: optax is not installed; `pip install 'thalweg[optax]'` installs it."
        ) from error
    functions = {name: value for name, value in vars(optax).items() if inspect.isfunction(value)}
    return {
        name: function
        for name, function in functions.items()
        if name[0] != "_" and "learning_rate" in inspect.signature(function).parameters
    }
