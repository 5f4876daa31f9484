"""Matrix products as exact as the numbers that are multiplied.

GPUs and TPUs multiply float32 matrices in shorter formats unless they are told otherwise. Gradients
then err by 1e-4 or more: far more than the error estimates of this library, and the rounding that
they allow for, take into account.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import Any, TypeVar, cast, overload

import equinox as eqx
import jax

_Function = TypeVar("_Function", bound=Callable)


def full_precision() -> AbstractContextManager:
    """A context in which JAX multiplies matrices in the precision of their entries.

    Whoever set `jax_default_matmul_precision` gets what they asked for.
    """
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return nullcontext() if chosen else jax.default_matmul_precision("highest")


def in_full_precision(function: _Function) -> _Function:
    """The function, with everything that it computes or traces in full precision."""

    @wraps(function)
    def precise(*args, **kwargs):
        with full_precision():
            return function(*args, **kwargs)

    return cast(_Function, precise)


@overload
def jit(function: _Function) -> _Function: ...


@overload
def jit(*, donate: Any) -> Callable[[_Function], _Function]: ...


def jit(function=None, *, donate: Any = "none"):
    """`equinox.filter_jit`, in full precision."""
    if function is None:
        return partial(jit, donate=donate)
    return eqx.filter_jit(in_full_precision(function), donate=donate)
