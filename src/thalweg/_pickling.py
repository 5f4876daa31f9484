"""Pickling objects that hold functions.

Python pickles a function by its name. `jax.jit`, `jax.custom_jvp` and `eqx.filter_jit` turn it into
an object of another type, which Python takes apart instead. That fails (`jnp.tanh`,
`jax.nn.softplus`), or gives a copy for which JAX compiles everything again.
"""

import operator
import sys
from types import FunctionType
from typing import Any


class _ByName:
    """Stands for an importable object in a pickle, which gives the object itself when loaded."""

    def __init__(self, module: str, name: str):
        self.module = module
        self.name = name

    def __reduce__(self):
        return _imported, (self.module, self.name)


def _imported(module: str, name: str) -> Any:
    __import__(module)
    return operator.attrgetter(name)(sys.modules[module])


def by_name(value: Any) -> Any:
    """What to pickle in place of `value`.

    A reference, if `value` is a wrapped function that can be imported by its own name. Anything
    else is returned as it is.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, FunctionType | type) or not (
        isinstance(module, str) and isinstance(name, str)
    ):
        return value
    try:
        found = _imported(module, name)
    except (ImportError, AttributeError):
        return value
    return _ByName(module, name) if found is value else value


def state_by_name(instance: Any) -> dict[str, Any]:
    """The attributes of an object, for its `__getstate__`, with functions replaced by `by_name`."""
    return {field: by_name(value) for field, value in vars(instance).items()}
