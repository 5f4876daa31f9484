"""Whether the samples of a batch are worked on independently, as parts of a batch need it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

# Samples that it takes to see all ways in which one may depend on others: on those before it, on
# those after it, on both.
FEWEST = 3
# Up to so many units of rounding two computations of the same number may differ.
_ROUNDING = 1e3


def check_independent(
    field: str, function: Callable[..., Array], whole: Array, *rows: Array
) -> None:
    """Refuse a function whose result for a sample changes with the samples before or after it.

    `whole` is `function(*rows)`; all arrays have a leading axis of samples. The function is
    evaluated again on about half of them, without the first and the last sample.
    """
    if len(whole) > 1 and _samples_mix(function, whole, *rows):
        raise ValueError(
            f"{field}: a sample's {_result(field)} changes with the other samples in the batch."
            " Switch layers such as batch normalisation to inference, or pass `whole_batch=True`"
            " (without micro-batches): the landscape is then that of all samples together."
        )


def check_independent_on_trial(
    field: str, function: Callable[..., Array], params: tuple[PyTree, ...], rows: tuple[Array, ...]
) -> None:
    """The same for `function(*params, *rows)`, tried on random parameters and a few random samples.

    Only shapes and dtypes of `params` and `rows` are used, so that they may be traced by JAX. It is
    tried once for a function and those; a function that cannot be hashed is not tried.
    """
    try:
        hash(function)
    except TypeError:
        return
    leaves, structure = jax.tree.flatten(params)
    kinds = tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    _try(field, function, structure, kinds, tuple((row.shape[1:], row.dtype) for row in rows))


# What raises an error is not remembered.
@functools.lru_cache(maxsize=64)
def _try(field, function, structure, kinds, samples) -> None:
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        # For functions that take roots or logarithms, also numbers between 0 and 1.
        for draw in (rng.normal, lambda size: rng.uniform(0.1, 0.9, size)):
            params = jax.tree.unflatten(structure, [_random(draw, *kind) for kind in kinds])
            rows = [_random(draw, (FEWEST, *shape), dtype) for shape, dtype in samples]
            tried = functools.partial(function, *params)
            whole = tried(*rows)
            if isinstance(whole, Tracer):
                raise ValueError(
                    f"{field}: holds values that JAX is tracing, so that it cannot be tried whether"
                    f" a sample's {_result(field)} changes with the other samples. Make the"
                    " objective outside of the function that is traced, or without micro-batches."
                )
            if np.isfinite(np.asarray(whole)).all():
                return check_independent(field, tried, whole, *rows)
    raise ValueError(
        f"{field}: not finite on random numbers, so that it cannot be tried whether a sample's"
        f" {_result(field)} changes with the other samples. Leave out micro-batches."
    )


def _samples_mix(function, whole, *rows) -> bool:
    count = len(whole)
    part = max(1, min(count // 2, count - 2))
    size = 1.0 + float(jnp.max(jnp.abs(whole)))
    tolerance = _ROUNDING * float(jnp.finfo(whole.dtype).eps) * size
    # Of two samples each has one neighbour only.
    for begin in range(1 if count > 2 else 0, min(count, 2)):
        inside = slice(begin, begin + part)
        found, there = function(*(row[inside] for row in rows)), whole[inside]
        if found.shape != there.shape or not bool(jnp.max(jnp.abs(found - there)) <= tolerance):
            return True
    return False


def _random(draw, shape: tuple[int, ...], dtype: Any) -> Array:
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(np.arange(np.prod(shape)).reshape(shape) % FEWEST).astype(dtype)
    # So that sums over an axis are of the size of their terms.
    return jnp.asarray(draw(size=shape) / np.sqrt(max(shape[1:], default=1)), dtype)


def _result(field: str) -> str:
    return {"predict": "prediction"}.get(field, field)
