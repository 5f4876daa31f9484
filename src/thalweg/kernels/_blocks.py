"""Matrices in pieces."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

# Where JAX takes an array's memory as its own, instead of making a copy.
_ALIGNMENT = 64


def blocks(count: int, size: int) -> list[slice]:
    """Rows in pieces of a size, the last of which may be smaller."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled piece by piece."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def filled(array: np.ndarray) -> Array:
    """The array as one of JAX's; in main memory it stays where it is, and must not be changed."""
    return jax.device_put(array, may_alias=True)
