"""Activation functions, with the facts about them that theory asks for."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._names import look_up
from .._pickling import state_by_name


@dataclass(frozen=True)
class Activation:
    """An activation function, elementwise.

    `slopes` are (for negative, for positive arguments) the slopes of a positively homogeneous
    activation, `s(c x) = c s(x)` for c > 0, and `None` for any other; `smooth` says whether it has
    derivatives of every order everywhere, and is `None` where nobody has said so.
    """

    name: str
    function: Callable[[Array], Array]
    slopes: tuple[float, float] | None = None
    smooth: bool | None = None

    def __call__(self, x: Array) -> Array:
        return self.function(x)

    def __reduce_ex__(self, protocol):
        # A name in this module: a copy of `tanh` is `tanh` itself.
        if globals().get(self.name) is self:
            return self.name
        return super().__reduce_ex__(protocol)

    def __getstate__(self):
        return state_by_name(self)

    @property
    def homogeneous(self) -> bool:
        """Whether the activation is known to be positively homogeneous of degree one."""
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


linear = Activation("linear", _identity, slopes=(1.0, 1.0), smooth=True)
relu = Activation("relu", _Leaky(0.0), slopes=(0.0, 1.0), smooth=False)
tanh = Activation("tanh", jnp.tanh, smooth=True)
softplus = Activation("softplus", jax.nn.softplus, smooth=True)
erf = Activation("erf", jax.scipy.special.erf, smooth=True)
gelu = Activation("gelu", _gelu, smooth=True)


def leaky_relu(slope: float = 0.01) -> Activation:
    """Leaky ReLU with this slope for negative arguments (Maas, Hannun and Ng 2013).

    **Raises:** ValueError for a slope that is not finite.
    """
    if not math.isfinite(slope):
        raise ValueError(f"slope: must be finite, got {slope}.")
    return Activation("leaky_relu", _Leaky(slope), slopes=(slope, 1.0), smooth=slope == 1)


ACTIVATIONS = {a.name: a for a in (linear, relu, leaky_relu(), tanh, softplus, erf, gelu)}


def activation(given: str | Activation | Callable[[Array], Array]) -> Activation:
    """An activation from its name, from an elementwise function, or from itself.

    Of a bare function neither slopes nor smoothness are known: an `Activation` can say them.

    **Raises:** ValueError for an unknown name; TypeError for something that cannot be called, or
    that cannot be hashed (the activation is part of what JAX compiles for, not of the parameters).
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        return look_up(given, ACTIVATIONS, "activation")
    if not callable(given):
        raise TypeError(f"activation: expected a name or a function, got {type(given).__name__}.")
    try:
        hash(given)
    except TypeError as error:
        raise TypeError(
            f"activation: {type(given).__name__} cannot be hashed. Pass a plain function; an"
            " activation with parameters of its own belongs in a network of your own."
        ) from error
    return Activation(getattr(given, "__name__", type(given).__name__), given)
