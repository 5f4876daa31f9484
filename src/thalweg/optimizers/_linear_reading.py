"""Which updates of an optimizer are linear, read off the computation.

An update is traced to JAX's intermediate language and followed operation by operation. A value is
either a constant of the run (a step number, a schedule, a decay), which depends on nothing but the
step, or linear in one leaf of the parameters and of the gradients: entry by entry the same
combination of entries in the same place. An operation that keeps neither is refused by name. What
remains holds at every scale, in every dimension and at every step, which probes of an update could
not say.

Since all entries of a leaf are treated alike, a linear value is followed as a batch of whatever
shape: the update of a network becomes that of a few numbers.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array

from .._kinks import bind


class Linear(NamedTuple):
    """A batch of entries of a value that is linear in leaf number `leaf`."""

    leaf: int
    value: Array


class Constant(NamedTuple):
    """A value that no parameter and no gradient enters.

    `uniform`: all its entries are the same; `zero`: they are zero, whatever the step. `resolution`:
    that of the coarsest arithmetic that it comes from, 0 if it was not computed. How that rounds
    is up to the compiler.
    """

    value: Any
    uniform: bool
    zero: bool = False
    resolution: float = 0.0


Value = Linear | Constant


class NotLinearError(ValueError):
    """An update that is not known to be linear, with the operation that says so."""


class NotCallableError(NotLinearError):
    """An update that fails for the parameters: it asks for more, or for other parameters."""


def constant(value: Any) -> Constant:
    """A number or an array that is there from the start."""
    if isinstance(value, Tracer) or np.size(value) == 0 or _is_key(value):
        return Constant(value, np.size(value) == 1)
    entries = np.asarray(value)
    uniform = bool(np.all(entries == entries.flat[0]))
    return Constant(value, uniform, zero=not np.any(entries))


def coerced(value: Value, kind: Value) -> Value:
    """The value as one of this kind: a zero as a linear value that vanishes."""
    if isinstance(kind, Linear) and isinstance(value, Constant):
        return Linear(kind.leaf, jnp.zeros_like(kind.value))
    return value


class Reader:
    """Follows functions of parameters whose leaves have these names and dtypes."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[Any]):
        self.names = list(names)
        self.dtypes = list(dtypes)
        # The operations that are being looked into, the innermost last.
        self._open: list[Any] = []
        # Whether something was found that asks for numbers that are not finite.
        self.guarded = False

    def read(self, traced: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a traced function, for linear values and constants.

        **Raises:** NotLinearError, naming the first operation on a linear value that does not leave
        it linear, and in its place.
        """
        jaxpr = traced.jaxpr
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        known.update(zip(jaxpr.constvars, map(constant, traced.consts), strict=True))

        def value(atom):
            if isinstance(atom, Literal):
                return constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            return known[atom]

        for eqn in jaxpr.eqns:
            self._open.append(eqn)
            results = self._apply(eqn, [value(atom) for atom in eqn.invars])
            self._open.pop()
            known.update(zip(eqn.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def joined(self, first: Value, second: Value) -> Value:
        """The kind of a value that is either the one or the other; its number is the first's."""
        if isinstance(first, Constant) and isinstance(second, Constant):
            uniform, zero = first.uniform and second.uniform, first.zero and second.zero
            resolution = max(first.resolution, second.resolution)
            return Constant(first.value, uniform, zero, resolution)
        if isinstance(first, Linear) and isinstance(second, Linear):
            if first.leaf != second.leaf:
                raise self.couples([first, second])
            return first
        for linear, other in ((first, second), (second, first)):
            if isinstance(linear, Linear) and isinstance(other, Constant) and not other.zero:
                raise self.adds(linear)
        return coerced(first, second)

    def _apply(self, eqn, arguments: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name in _CALLS:
            return self.read(_inner(eqn), arguments)
        if name == "cond":
            return self._branched(eqn, *arguments)
        linear = [a for a in arguments if isinstance(a, Linear)]
        if not linear:
            return self._constants(eqn, [a for a in arguments if isinstance(a, Constant)])
        rule = _RULES.get(name)
        result = None if rule is None else rule(self, eqn, *arguments)
        if result is not None:
            return [result]
        if name in _REARRANGED or len({a.leaf for a in linear}) > 1:
            raise self.couples(linear)
        raise self.nonlinear(linear)

    def _branched(self, eqn, which: Value, *operands: Value) -> list[Value]:
        """One of several functions, by the step number or another constant."""
        if isinstance(which, Linear):
            raise self.nonlinear([which])
        branches = eqn.params["branches"]
        if len(branches) == 1:
            return self.read(branches[0], operands)
        kinds = self._kinds(branches[0], operands)
        for branch in branches[1:]:
            kinds = list(map(self.joined, kinds, self._kinds(branch, operands)))

        def outcome(branch):
            found = self.read(branch, operands)
            return [coerced(v, k).value for v, k in zip(found, kinds, strict=True)]

        values = jax.lax.switch(which.value, [lambda b=b: outcome(b) for b in branches])
        return [k._replace(value=v) for k, v in zip(kinds, values, strict=True)]

    def _kinds(self, branch: ClosedJaxpr, operands: Sequence[Value]) -> list[Value]:
        """What the outputs of a branch are; nothing is computed."""
        found: list[Value] = []

        def values():
            found.extend(self.read(branch, operands))
            return [f.value for f in found]

        shapes = jax.eval_shape(values)
        return [
            Linear(f.leaf, jnp.zeros(s.shape, s.dtype)) if isinstance(f, Linear) else f
            for f, s in zip(found, shapes, strict=True)
        ]

    def _constants(self, eqn, arguments: Sequence[Constant]) -> list[Value]:
        name = eqn.primitive.name
        if eqn.effects or "callback" in name or name == "ffi_call":
            raise NotLinearError(
                f"its steps are not known: {self._where()} calls foreign code (`{name}`)."
            )
        results = bind(eqn, [a.value for a in arguments])
        alike = name in _ENTRYWISE and all(a.uniform for a in arguments)
        zero = name in _KEEP_ZERO and all(a.zero for a in arguments)
        zero = zero or (name == "mul" and any(a.zero for a in arguments))
        rounded = max((a.resolution for a in arguments), default=0.0)
        return [
            Constant(r, alike or np.size(r) == 1, zero, max(rounded, _resolution(eqn, r)))
            for r in results
        ]

    def number(self, factor: Constant, x: Linear) -> Array:
        """What a constant multiplies all entries of a linear value by."""
        if not factor.uniform:
            raise self.differ(x)
        if factor.resolution > jnp.finfo(self.dtypes[x.leaf]).eps:
            raise self.coarse(x)
        return jnp.reshape(factor.value, (-1,))[0].astype(x.value.dtype)

    # What to say of an operation that is not linear. It is the innermost of those being looked
    # into.

    def nonlinear(self, linear: Sequence[Linear]) -> NotLinearError:
        """An operation on these values is not linear."""
        return NotLinearError(
            f"its steps are not linear in the gradient: {self._where()} applies `{self._name()}` to"
            f" what comes from {self._leaves(linear)} and the gradient there."
        )

    def couples(self, linear: Sequence[Linear]) -> NotLinearError:
        """An operation makes one number of several entries, or moves them."""
        return NotLinearError(
            f"its step of one parameter depends on other parameters: {self._where()} brings entries"
            f" of {self._leaves(linear)} together (`{self._name()}`)."
        )

    def differ(self, x: Linear) -> NotLinearError:
        """An operation does not treat all entries of a value alike."""
        return NotLinearError(
            "its steps are not the same multiple of the gradient for all parameters:"
            f" {self._where()} treats entries of {self.names[x.leaf]} differently"
            f" (`{self._name()}`)."
        )

    def adds(self, x: Linear) -> NotLinearError:
        """Something else is added to a linear value."""
        return NotLinearError(
            f"its steps are not linear in the gradient: {self._where()} adds numbers to what comes"
            f" from {self.names[x.leaf]} and the gradient there that do not depend on these, as"
            " noise does."
        )

    def rounds(self, x: Linear, dtype: Any) -> NotLinearError:
        """An operation keeps fewer digits than parameters have."""
        return NotLinearError(
            f"its steps are not linear in the gradient: {self._where()} rounds what comes from"
            f" {self.names[x.leaf]}, {jnp.dtype(self.dtypes[x.leaf]).name}, and the gradient there"
            f" to {jnp.dtype(dtype).name}."
        )

    def coarse(self, x: Linear) -> NotLinearError:
        """A number that multiplies a linear value is known less well than parameters are."""
        return NotLinearError(
            f"its steps are not known to the precision of {self.names[x.leaf]},"
            f" {jnp.dtype(self.dtypes[x.leaf]).name}: {self._where()} multiplies by a number that"
            " was computed with fewer digits, and rounding is up to the compiler. Compute schedules"
            " in the precision of the parameters."
        )

    def _leaves(self, linear: Sequence[Linear]) -> str:
        return " and ".join(dict.fromkeys(self.names[x.leaf] for x in linear))

    def _name(self) -> str:
        return self._open[-1].primitive.name if self._open else "select_n"

    def _where(self) -> str:
        """The transformation that the present operation belongs to, if its traceback tells."""
        for eqn in reversed(self._open):
            traceback = getattr(eqn.source_info, "traceback", None)
            for frame in getattr(traceback, "frames", ()):
                found = re.match(r"(\w+)\.<locals>\.update", frame.function_name)
                if found and found[1] not in _WRAPPERS:
                    return f"`{found[1]}`"
        return "its update"


def _inner(eqn) -> ClosedJaxpr:
    """The function that an operation calls, and does nothing else."""
    found = (eqn.params.get(key) for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"))
    inner = next(j for j in found if j is not None)
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def _resolution(eqn, result) -> float:
    """With how many digits an operation computes: 0 for one that only moves or widens numbers."""
    dtype = jnp.result_type(result)
    if eqn.primitive.name in _UNROUNDED or not jnp.issubdtype(dtype, jnp.floating):
        return 0.0
    own = float(jnp.finfo(dtype).eps)
    if eqn.primitive.name == "convert_element_type":
        given = eqn.invars[0].aval.dtype
        exact = not jnp.issubdtype(given, jnp.floating) or float(jnp.finfo(given).eps) >= own
        return 0.0 if exact else own
    return own


def _is_key(value) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key)


# Rules of linear values: a result, or None where it is not linear.


def _same(reader, eqn, x, *_):
    return x


def _converted(reader, eqn, x):
    target, own = eqn.params["new_dtype"], reader.dtypes[x.leaf]
    if not jnp.issubdtype(target, jnp.floating):
        return None
    if jnp.finfo(target).eps > jnp.finfo(own).eps:
        raise reader.rounds(x, target)
    return x


def _negated(reader, eqn, x):
    return Linear(x.leaf, -x.value)


def _summed(reader, eqn, first, second):
    sign = -1 if eqn.primitive.name == "sub" else 1
    for one, other, scale in ((first, second, 1), (second, first, sign)):
        if isinstance(other, Constant):
            if not other.zero:
                raise reader.adds(one)
            return Linear(one.leaf, scale * one.value)
    if first.leaf != second.leaf:
        return None
    return Linear(first.leaf, first.value + sign * second.value)


def _multiplied(reader, eqn, first, second):
    if isinstance(first, Linear) and isinstance(second, Linear):
        return None
    x, factor = (first, second) if isinstance(first, Linear) else (second, first)
    if factor.zero:
        shape = eqn.outvars[0].aval
        return Constant(jnp.zeros(shape.shape, shape.dtype), True, True)
    return Linear(x.leaf, x.value * reader.number(factor, x))


def _divided(reader, eqn, x, divisor):
    if isinstance(divisor, Linear):
        return None
    return Linear(x.leaf, x.value / reader.number(divisor, x))


def _powered(reader, eqn, x):
    return x if eqn.params["y"] == 1 else None


def _selected(reader, eqn, which, *cases):
    if isinstance(which, Linear):
        return None
    kind = cases[0]
    for case in cases[1:]:
        kind = reader.joined(kind, case)
    if not which.uniform:
        raise reader.differ(kind)
    chosen = jnp.reshape(which.value, (-1,))[0].astype(int)
    values = [coerced(case, kind).value for case in cases]
    return Linear(kind.leaf, jnp.select([chosen == i for i in range(len(values))], values))


def _finite(reader, eqn, x):
    # Predictions are of runs whose numbers are finite.
    reader.guarded = True
    return Constant(jnp.ones(eqn.outvars[0].aval.shape, bool), True)


def _unequal(reader, eqn, first, second):
    # NaN is what differs from itself.
    if eqn.invars[0] is not eqn.invars[1]:
        return None
    reader.guarded = True
    return Constant(jnp.zeros(eqn.outvars[0].aval.shape, bool), True, True)


def _reshaped(reader, eqn, x, *_):
    # Dimensions may be permuted on the way.
    permuted = eqn.primitive.name == "reshape" and eqn.params.get("dimensions") is not None
    same = eqn.invars[0].aval.shape == eqn.outvars[0].aval.shape
    return x if same and not permuted else None


_RULES: dict[str, Callable[..., Value | None]] = {
    **dict.fromkeys(("copy", "copy_p", "device_put", "sharding_constraint"), _same),
    **dict.fromkeys(("add", "sub", "add_any"), _summed),
    **dict.fromkeys(("reshape", "broadcast_in_dim"), _reshaped),
    "mul": _multiplied,
    "div": _divided,
    "neg": _negated,
    "convert_element_type": _converted,
    "integer_pow": _powered,
    "select_n": _selected,
    "is_finite": _finite,
    "ne": _unequal,
}
_CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
# Operations that bring entries together, or to other places.
_REARRANGED = {
    *("reduce_sum", "dot_general", "concatenate", "reshape", "broadcast_in_dim", "transpose"),
    *("squeeze", "expand_dims", "slice", "split", "dynamic_slice", "dynamic_update_slice"),
    *("gather", "scatter", "scatter-add", "pad", "rev", "cumsum", "conv_general_dilated", "fft"),
}
_SPREAD = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "transpose"}
# Operations on constants whose results are the same everywhere if their arguments are, and those
# that make zero of zeros.
_ENTRYWISE = {
    *_SPREAD,
    *("add", "sub", "mul", "div", "rem", "neg", "sign", "abs", "max", "min", "clamp", "pow"),
    *("integer_pow", "sqrt", "rsqrt", "square", "exp", "log", "log1p", "expm1", "sin", "cos"),
    *("tanh", "logistic", "floor", "ceil", "round", "select_n", "convert_element_type", "copy"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "is_finite"),
}
_UNROUNDED = {*_SPREAD, "copy", "select_n", "neg", "abs", "sign", "max", "min", "clamp"}
_KEEP_ZERO = {*_SPREAD, "add", "sub", "neg", "square", "copy", "convert_element_type"}
# Functions of optax that make transformations of other functions.
_WRAPPERS = {"chain", "named_chain", "stateless", "masked", "partition", "inject_hyperparams"}
