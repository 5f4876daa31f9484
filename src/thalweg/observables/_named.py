"""The observables that a study records by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._accuracy import accuracy
from ._activation_flips import ActivationFlips
from ._norms import gradient_norm, parameter_norm


@dataclass(frozen=True)
class NamedObservable:
    """An observable of one number, as studies record it.

    - `title`: what it is, for people.
    - `observable`: as `observe` takes it.
    - `smooth`: whether it changes with the parameters without jumps. Then the error of a flow gives
        it an error bar of first order: the norm of its gradient times the flow's error.
    - `gradients`: what a value costs.
    - `needs`: "classes" or "kinks", where it makes sense for such data or networks only.
    """

    title: str
    observable: Callable[..., Any]
    smooth: bool
    gradients: int = 0
    needs: str | None = None


OBSERVABLES = {
    "gradient_norm": NamedObservable(
        "norm of the gradient", gradient_norm, smooth=True, gradients=1
    ),
    "parameter_norm": NamedObservable("norm of the parameters", parameter_norm, smooth=True),
    "accuracy": NamedObservable("accuracy", accuracy, smooth=False, needs="classes"),
    "activation_flips": NamedObservable(
        "kinks crossed since the saved time before", ActivationFlips(), smooth=False, needs="kinks"
    ),
}
