"""The update of an optimizer, on batches of the entries of its parameters."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._base import Optimizer
from ._linear_reading import (
    Constant,
    Linear,
    NotCallableError,
    NotLinearError,
    Reader,
    Value,
    coerced,
)


class Kind(NamedTuple):
    """What a part of an optimizer's state is at every step.

    Linear in a leaf of the parameters, or, without one, a constant of the run; then the others are
    as for `Constant`.
    """

    leaf: int | None
    uniform: bool = False
    zero: bool = False
    resolution: float = 0.0

    @staticmethod
    def of(value: Value) -> "Kind":
        if isinstance(value, Linear):
            return Kind(value.leaf)
        return Kind(None, value.uniform, value.zero, value.resolution)

    def value(self, array: Array) -> Value:
        """An array of this kind."""
        if self.leaf is None:
            return Constant(array, self.uniform, self.zero, self.resolution)
        return Linear(self.leaf, array)


class LinearUpdate:
    """An update that was read and found to be linear, leaf by leaf.

    It acts on a row of arrays, one for each leaf of the parameters, of whatever shapes.

    **Raises:** NotLinearError for an update that is not known to be linear, and NotCallableError
    for one that fails for these parameters.
    """

    def __init__(self, optimizer: Optimizer, params: PyTree):
        paths = jax.tree_util.tree_leaves_with_path(params)
        names = ["params" + jax.tree_util.keystr(path) for path, _ in paths]
        self._reader = Reader(names, [jnp.result_type(leaf) for _, leaf in paths])
        try:
            self._start = jax.make_jaxpr(_start(optimizer))(params)
            self._step = _traced(optimizer, params)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A transformation that asks for losses, or for parameters of a type of its own.
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            reason = f"its update cannot be called for these parameters ({what})."
            raise NotCallableError(reason) from error
        self.kinds = self._settled()

    @property
    def names(self) -> list[str]:
        """The names of the leaves of the parameters."""
        return self._reader.names

    @property
    def guarded(self) -> bool:
        """Whether it does something else with numbers that are not finite."""
        return self._reader.guarded

    def init(self, values: Sequence[Array]) -> list[Array]:
        """The optimizer's state: batches for what is linear in a leaf, constants as they are."""
        return self._state(self._reader.read(self._start, _linear(values)), values)

    def update(
        self,
        k: Array,
        values: Sequence[Array],
        state: Sequence[Array],
        gradient: Callable[[list[Array]], Sequence[Array]],
    ) -> tuple[list[Array], list[Array]]:
        """Step `k`: new values and state."""
        count = len(values)
        known = [kind.value(s) for kind, s in zip(self.kinds, state, strict=True)]

        def outputs(gradients):
            given = [Constant(k, True), *_linear(values), *known, *_linear(gradients)]
            return self._reader.read(self._step, given)

        # Where the gradient is taken does not depend on what it is.
        ahead = self._points(outputs([jnp.zeros_like(v) for v in values])[:count], values)
        found = outputs(gradient(ahead))[count:]
        return self._points(found[:count], values), self._state(found[count:], values)

    def still(self, dtype) -> list[Array]:
        """A state in which all that is linear vanishes; constants have to be filled in."""
        return [jnp.zeros((), dtype)] * len(self.kinds)

    def _points(self, found: Sequence[Value], values: Sequence[Array]) -> list[Array]:
        """Parameters, which must come from those in the same place."""
        places = _linear(values)
        for value, place in zip(found, places, strict=True):
            self._reader.joined(value, place)
        return [coerced(v, p).value for v, p in zip(found, places, strict=True)]

    def _state(self, found: Sequence[Value], values: Sequence[Array]) -> list[Array]:
        return [
            value.value if kind.leaf is None else coerced(value, Linear(kind.leaf, like)).value
            for value, kind in zip(found, self.kinds, strict=True)
            for like in [values[kind.leaf or 0]]
        ]

    def _settled(self) -> list[Kind]:
        """What every part of the state is at all steps; nothing is computed.

        A part that starts at zero is linear if a step makes it so.
        """
        values = [jnp.zeros((), d) for d in self._reader.dtypes]
        found: list[Value] = []

        def first():
            found[:] = self._reader.read(self._start, _linear(values))
            return [f.value for f in found]

        def next_one(k, state):
            known = [kind.value(s) for kind, s in zip(kinds, state, strict=True)]
            given = [Constant(k, True), *_linear(values), *known, *_linear(values)]
            outputs = self._reader.read(self._step, given)
            count = len(values)
            for part in (outputs[:count], outputs[count : 2 * count]):
                self._points(part, values)
            after = zip(known, outputs[2 * count :], strict=True)
            found[:] = [self._reader.joined(a, b) for a, b in after]
            return [f.value for f in found]

        state = jax.eval_shape(first)
        kinds = [Kind.of(f) for f in found]
        while True:
            state = jax.eval_shape(next_one, jnp.zeros((), int), state)
            now = [Kind.of(f) for f in found]
            if now == kinds:
                return kinds
            kinds = now


def _linear(values: Sequence[Array]) -> list[Value]:
    return [Linear(i, v) for i, v in enumerate(values)]


def _start(optimizer: Optimizer):
    return lambda params: jax.tree.map(jnp.asarray, optimizer.init(params))


def _traced(optimizer: Optimizer, params: PyTree):
    """A step, with its gradient handed in: where that is taken, new parameters and state."""

    def step(k, params, state, gradients):
        points = []

        def gradient(point):
            points.append(point)
            return gradients

        new, after = optimizer.update(k, params, state, gradient)
        if len(points) != 1:
            raise NotLinearError(f"its update takes {len(points)} gradients instead of one.")
        return points[0], new, jax.tree.map(jnp.asarray, after)

    state = jax.eval_shape(_start(optimizer), params)
    return jax.make_jaxpr(step)(jnp.zeros((), int), params, state, params)
