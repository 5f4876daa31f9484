"""Checks of numbers and data, with messages that name the field."""

import math
from collections.abc import Iterable
from types import UnionType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

# The largest length that an array can have.
_LARGEST = 2**63 - 1


def check_instance(value: Any, kind: type | UnionType, field: str, name: str) -> None:
    """Refuse anything but an instance of `kind`, of which `name` speaks, and classes kindly."""
    # A class has the methods of a protocol, too.
    if isinstance(value, kind) and not isinstance(value, type):
        return
    if isinstance(value, type) and issubclass(value, kind):
        given = value.__name__
        raise TypeError(f"{field}: expected {name}, got the class {given}; write {given}(...).")
    given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    raise TypeError(f"{field}: expected {name}, got {given}.")


def check_number(value: Any, field: str) -> float | None:
    """The finite number in `value`; `None` while JAX traces it."""
    if isinstance(value, Tracer):
        return None
    if isinstance(value, bool) or (
        not isinstance(value, (int, float)) and getattr(value, "ndim", None) != 0
    ):
        raise TypeError(f"{field}: expected a number, got {value!r}.")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{field}: must be finite, got {number}.")
    return number


def check_positive(value: Any, field: str, *, zero: bool = False) -> None:
    """Refuse a number that is not finite and positive (or zero, where `zero` allows it)."""
    number = check_number(value, field)
    if number is not None and (number < 0 or (number == 0 and not zero)):
        kind = "zero or positive" if zero else "positive"
        raise ValueError(f"{field}: must be {kind}, got {number}.")


def check_momentum(value: Any, field: str = "momentum") -> None:
    """Refuse a momentum outside [0, 1)."""
    number = check_number(value, field)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"{field}: must lie in [0, 1), got {number}.")


def check_positive_integer(number: Any, field: str) -> None:
    """Refuse anything but a positive integer, and one that no array can have for its length."""
    if not _is_positive_integer(number):
        raise ValueError(f"{field}: expected a positive integer, got {number!r}.")
    _check_length(number, field)


def check_positive_integers(numbers: Iterable[Any], field: str) -> None:
    """Refuse a row with anything but positive integers in it."""
    numbers = list(numbers)
    if not all(map(_is_positive_integer, numbers)):
        raise ValueError(f"{field}: expected positive integers, got {numbers}.")
    for number in numbers:
        _check_length(number, field)


def _is_positive_integer(number: Any) -> bool:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return whole and bool(number >= 1)


def _check_length(number: int | np.integer, field: str) -> None:
    if number > _LARGEST:
        digits = math.ceil(int(number).bit_length() * math.log10(2))
        raise ValueError(
            f"{field}: expected at most {_LARGEST}, got an integer of about {digits} digits."
        )


def check_precision(dtype: Any, field: str) -> None:
    """Refuse real numbers with fewer digits than float32 has."""
    if jnp.finfo(dtype).bits < 32:
        raise TypeError(
            f"{field}: {dtype} has too few digits for dynamics to be followed; use float32 or"
            " float64."
        )


def checked_data(data: Any, field: str) -> Array:
    """Data as an array with a leading axis of samples, real and finite.

    **Raises:** TypeError for something else than an array, and for complex numbers; ValueError for
    an array without samples, and for NaN or infinity in it.
    """
    try:
        array = jnp.asarray(data)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{field}: expected an array, got {type(data).__name__}.") from error
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{field}: holds no samples (shape {array.shape}).")
    if isinstance(array, Tracer):
        return array
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{field}: complex numbers ({array.dtype}) are not supported.")
    if jnp.issubdtype(array.dtype, jnp.floating):
        # Numbers only, no arrays: data may be spread over processes.
        bad = ~jnp.isfinite(array)
        if bool(jnp.any(bad)):
            where = np.unravel_index(int(jnp.argmax(bad)), array.shape)
            raise ValueError(
                f"{field}: NaN or infinity, first at index {tuple(int(i) for i in where)}."
            )
    return array
