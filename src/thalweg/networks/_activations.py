"""Activation functions, with the facts about them that theory asks for."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._names import look_up


@dataclass(frozen=True)
class Activation:
    """An activation function, elementwise.

    `slopes` are (for negative, for positive arguments) the slopes of a positively homogeneous
    activation, `s(c x) = c s(x)` for c > 0, and `None` for others; `smooth` says whether the second
    derivative exists everywhere.
    """

    name: str
    function: Callable[[Array], Array]
    slopes: tuple[float, float] | None = None
    smooth: bool = True

    def __call__(self, x: Array) -> Array:
        return self.function(x)

    @property
    def homogeneous(self) -> bool:
        """Whether the activation is positively homogeneous of degree one."""
        return self.slopes is not None


@dataclass(frozen=True)
class _Leaky:
    slope: float

    def __call__(self, x: Array) -> Array:
        return jnp.where(x > 0, x, self.slope * x)


def _identity(x: Array) -> Array:
    return x


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


linear = Activation("linear", _identity, slopes=(1.0, 1.0))
relu = Activation("relu", _Leaky(0.0), slopes=(0.0, 1.0), smooth=False)
tanh = Activation("tanh", jnp.tanh)
softplus = Activation("softplus", jax.nn.softplus)
erf = Activation("erf", jax.scipy.special.erf)
gelu = Activation("gelu", _gelu)


def leaky_relu(slope: float = 0.01) -> Activation:
    """Leaky ReLU with this slope for negative arguments."""
    return Activation("leaky_relu", _Leaky(slope), slopes=(slope, 1.0), smooth=False)


ACTIVATIONS = {a.name: a for a in (linear, relu, leaky_relu(), tanh, softplus, erf, gelu)}


def activation(given: str | Activation | Callable[[Array], Array]) -> Activation:
    """An activation from its name, from an elementwise function, or from itself.

    **Raises:** ValueError for an unknown name; TypeError for something that cannot be called.
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        return look_up(given, ACTIVATIONS, "activation")
    if callable(given):
        return Activation(getattr(given, "__name__", "custom"), given)
    raise TypeError(f"activation: expected a name or a function, got {type(given).__name__}.")
