"""Functions with kinks, such as ReLU networks, and their derivatives averaged over a segment.

The derivative of a network with ReLUs or max-pooling jumps where an argument changes sign. Along a
short segment of parameters, `params + s displacement` for `s` in [-1/2, 1/2], that argument is
nearly linear in `s`, so that the part of the segment on either side of the kink is known from its
value and its change; with these parts as weights, both one-sided derivatives make up the mean
derivative over the segment. To see the kinks of any function, it is traced to JAX's intermediate
language and evaluated operation by operation, values and changes along the segment side by side.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array, Bool, Float, PyTree

_COMPARISONS = {"gt": 1, "ge": 1, "lt": -1, "le": -1}
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
# Truths that hold nowhere or everywhere but at single points: no kink comes of them.
_EXCEPTIONAL = {"eq", "ne", "is_finite"}
# Operations that only move entries, through which a comparison can be followed.
_MOVES = {"broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "rev", "copy", "expand"}
_EXTREMES = {"reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"}
# What a rule of derivatives that merely settles the value at a kink is made of.
_PIECEWISE = {
    *_COMPARISONS,
    *_CALLS,
    *("max", "min", "clamp", "abs", "neg", "select_n", "mul", "add", "sub"),
    *("broadcast_in_dim", "convert_element_type"),
}
# Smooth although they are written with a case distinction.
_SMOOTH_CALLS = {"elu", "celu"}
# What may hide kinks and is not looked into: control flow, foreign code, orderings, rules of
# derivatives of somebody's own.
_UNREAD = {
    *("scan", "while", "cond", "pure_callback", "io_callback", "ffi_call"),
    *("custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin", "sort", "top_k"),
    *("cummax", "cummin", "argmax", "argmin"),
}
_QUADRATURE = 8


class _Value(NamedTuple):
    """A value in the middle of the segment and at its end, and where a truth changes.

    `end` is None for what does not depend on the parameters. `margin` belongs to the truth of a
    comparison: the number whose sign it is, in the middle and at the end.
    """

    value: Any
    end: Any = None
    margin: tuple[Any, Any] | None = None

    @property
    def last(self):
        """The value at the end, whether it moves or not."""
        return self.value if self.end is None else self.end


class _Findings:
    """What is met on the way: sides of kinks, and operations that may hide further ones."""

    def __init__(self):
        self.sides: list[Any] = []
        self.unread: set[str] = set()


def mean_over_segment(
    function: Callable[[PyTree], PyTree], params: PyTree, displacement: PyTree
) -> PyTree:
    """`function(params)`, such that derivatives in `params` are means over a segment.

    The segment is `params +- displacement / 2`; the means are those of one-sided derivatives at
    kinks, weighted by the parts of the segment on either side, to first order in the displacement.
    Without a kink on the segment this is `function(params)` with its derivative at the midpoint.
    """
    return _evaluate(function, params, displacement, _Findings())


def kink_pattern(function: Callable[[PyTree], PyTree], params: PyTree) -> list[Bool[Array, "..."]]:
    """For every kink in a function, elementwise, the side that `params` are on.

    One array for each operation with a kink: the sign of a ReLU's argument, the place of a maximum.
    Empty for a function without kinks (that can be seen: loops and branches are not looked into).
    """
    findings = _Findings()
    _evaluate(function, params, jax.tree.map(jnp.zeros_like, params), findings)
    return findings.sides


def has_kinks(function: Callable[[PyTree], PyTree], params: PyTree) -> bool:
    """Whether there is any kink to be seen in a function; nothing is computed."""
    return bool(jax.eval_shape(lambda p: kink_pattern(function, p), params))


def unread_operations(function: Callable[[PyTree], PyTree], params: PyTree) -> set[str]:
    """The operations on the parameters that may hide kinks; nothing is computed."""
    findings = _Findings()
    still = jax.tree.map(jnp.zeros_like, params)
    jax.eval_shape(lambda p: _evaluate(function, p, still, findings), params)
    return findings.unread


def _evaluate(function, params, displacement, findings):
    # A function of its own: JAX compares those that it traces, Equinox's methods by value.
    traced, shape = jax.make_jaxpr(lambda p: function(p), return_shape=True)(params)
    end = jax.tree.map(lambda p, d: jax.lax.stop_gradient(p + d / 2), params, displacement)
    inputs = [
        _Value(*pair) for pair in zip(jax.tree.leaves(params), jax.tree.leaves(end), strict=True)
    ]
    constants = [_Value(c) for c in traced.consts]
    alive = [True] * len(traced.jaxpr.outvars)
    outputs = _interpret(traced.jaxpr, constants, inputs, alive, findings)
    return jax.tree.unflatten(jax.tree.structure(shape), [out.value for out in outputs])


def _interpret(jaxpr, constants, inputs, alive, findings) -> list[_Value]:
    environment: dict[Any, _Value] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True)
    )
    living = _living(jaxpr, alive)

    def read(atom):
        return _Value(atom.val) if isinstance(atom, Literal) else environment[atom]

    for eqn in jaxpr.eqns:
        arguments = [read(atom) for atom in eqn.invars]
        matters = [var in living for var in eqn.outvars]
        results = _apply(eqn, arguments, matters, findings)
        environment.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _living(jaxpr, alive) -> set:
    """The variables on which some output depends other than through `stop_gradient`."""
    outputs = zip(jaxpr.outvars, alive, strict=True)
    living = {var for var, is_alive in outputs if is_alive and not isinstance(var, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.primitive.name != "stop_gradient" and any(var in living for var in eqn.outvars):
            living.update(var for var in eqn.invars if not isinstance(var, Literal))
    return living


def _apply(eqn, arguments: list[_Value], matters: list[bool], findings: _Findings) -> list[_Value]:
    name = eqn.primitive.name
    inner = _inner(eqn)
    if inner is not None:
        constants = [_Value(c) for c in inner.consts]
        return _interpret(inner.jaxpr, constants, arguments, matters, findings)
    if name in _COMPARISONS:
        return [_comparison(eqn, *arguments)]
    if name in _MOVES and arguments[0].margin is not None and len(arguments) == 1:
        truth, last, *margin = (
            bind(eqn, [m])[0] for m in (arguments[0].value, arguments[0].end, *arguments[0].margin)
        )
        return [_Value(truth, last, (margin[0], margin[1]))]
    if any(matters) and _moves(arguments):
        kinked = _KINKS.get(name)
        result = None if kinked is None else kinked(eqn, arguments, findings.sides.append)
        if result is not None:
            return [result]
        if name in _UNREAD or (name == "select_n" and arguments[0].end is not None):
            findings.unread.add(name)
    return _smooth(eqn, arguments)


def _moves(arguments: list[_Value]) -> bool:
    return any(a.end is not None for a in arguments)


def _inner(eqn):
    """The function that an operation calls, if it is to be looked into."""
    name = eqn.primitive.name
    if name in _CALLS:
        if eqn.params.get("name") in _SMOOTH_CALLS:
            return None
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        return inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ())
    if name == "custom_jvp_call" and _piecewise(eqn.params["call_jaxpr"].jaxpr):
        return eqn.params["call_jaxpr"]
    return None


def _piecewise(jaxpr) -> bool:
    """Whether a function is linear in pieces, so that its own rule of derivatives adds nothing."""
    return all(
        eqn.primitive.name in _PIECEWISE
        and (eqn.primitive.name not in _CALLS or _piecewise(eqn.params["jaxpr"].jaxpr))
        for eqn in jaxpr.eqns
    )


def bind(eqn, values: list) -> list:
    """The operation as it is, on other values."""
    found = eqn.primitive.get_bind_params(eqn.params)
    # Before jax 0.10, functions among the parameters are handed over on their own.
    functions, parameters = found if isinstance(found, tuple) else ((), found)
    result = eqn.primitive.bind(*functions, *values, **parameters)
    return list(result) if eqn.primitive.multiple_results else [result]


def _smooth(eqn, arguments: list[_Value]) -> list[_Value]:
    """An operation without kinks, in the middle and at the end."""
    results = bind(eqn, [a.value for a in arguments])
    if all(a.end is None for a in arguments) or eqn.primitive.name in _EXCEPTIONAL:
        return [_Value(r) for r in results]
    ends = bind(eqn, [a.last for a in arguments])
    return [_Value(*pair) for pair in zip(results, ends, strict=True)]


def _comparison(eqn, left: _Value, right: _Value) -> _Value:
    truth = bind(eqn, [left.value, right.value])[0]
    if left.end is None and right.end is None:
        return _Value(truth)
    sign = _COMPARISONS[eqn.primitive.name]
    middle = jax.lax.stop_gradient(sign * (left.value - right.value))
    last = bind(eqn, [left.last, right.last])[0]
    return _Value(truth, last, (middle, sign * (left.last - right.last)))


def _part(middle: Array, end: Array, truth: Array) -> Float[Array, "..."]:
    """The part of the segment on which a margin is positive; `truth` if it does not change sign."""
    half = jnp.abs(end - middle)
    crosses = jnp.abs(middle) < half
    inside = 0.5 + 0.5 * middle / jnp.where(crosses, half, 1)
    return jnp.where(crosses, inside, truth.astype(middle.dtype))


def _either(part: Array, there: _Value, here: _Value) -> _Value:
    """`there` weighted by `part`, `here` by the rest."""

    def mixed(a, b):
        # Where a case does not apply it may be infinite.
        weight = part.astype(jnp.result_type(a))
        outside = jnp.where(part > 0, a, b)
        return jnp.where((part > 0) & (part < 1), b + weight * (a - b), outside)

    moves = there.end is not None or here.end is not None
    end = mixed(there.last, here.last) if moves else None
    return _Value(mixed(there.value, here.value), end)


def _larger(eqn, arguments, record) -> _Value:
    first, second = arguments if eqn.primitive.name == "max" else reversed(arguments)
    middle = jax.lax.stop_gradient(first.value - second.value)
    truth = middle > 0
    record(truth)
    part = _part(middle, first.last - second.last, truth)
    if eqn.primitive.name == "min":
        # Of two arguments the one is the smaller where the other is the larger.
        first, second = second, first
    return _either(part, first, second)


def _absolute(eqn, arguments, record) -> _Value:
    (x,) = arguments
    middle = jax.lax.stop_gradient(x.value)
    truth = middle > 0
    record(truth)
    return _either(_part(middle, x.end, truth), x, _Value(-x.value, -x.end))


def _clamped(eqn, arguments, record) -> _Value | None:
    low, x, high = arguments
    if x.end is None or low.end is not None or high.end is not None:
        return None
    result = x
    for bound, sign in ((low, 1), (high, -1)):
        middle = jax.lax.stop_gradient(sign * (result.value - bound.value))
        truth = middle > 0
        record(truth)
        edge = _Value(jnp.broadcast_to(bound.value, jnp.shape(middle)))
        part = _part(middle, sign * (result.last - bound.value), truth)
        result = _either(part, result, edge)
    return result


def _selected(eqn, arguments, record) -> _Value | None:
    which, *cases = arguments
    if which.margin is None or len(cases) != 2 or all(c.end is None for c in cases):
        return None
    here, there = cases
    shape = jnp.shape(there.value)
    middle, end, truth = (jnp.broadcast_to(m, shape) for m in (*which.margin, which.value))
    record(truth)
    return _either(_part(middle, end, truth), there, here)


def _extreme(eqn, arguments, record) -> _Value:
    """The largest of many: which one it is, is sampled along the segment."""
    (x,) = arguments
    middle = jax.lax.stop_gradient(x.value)

    def largest(v):
        return bind(eqn, [v])[0]

    result, push = jax.vjp(largest, middle)
    record(push(jnp.ones_like(result))[0] > 0)
    places = [(2 * k + 1) / _QUADRATURE - 1 for k in range(_QUADRATURE)]
    sampled = [largest(x.value + place * (x.end - middle)) for place in places]
    return _Value(sum(sampled) / _QUADRATURE, largest(x.end))


_KINKS: dict[str, Callable[..., _Value | None]] = {
    "max": _larger,
    "min": _larger,
    "abs": _absolute,
    "clamp": _clamped,
    "select_n": _selected,
    **dict.fromkeys(_EXTREMES, _extreme),
}
