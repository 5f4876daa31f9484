"""How weights are drawn, and how the forward pass scales them."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import check_positive
from .._names import look_up


class Initialisation(eqx.Module):
    """A law for the weights and biases of one layer.

    The forward pass of a layer is `weight_scale(fan_in) * W x + bias_scale() * b`; both scales are
    1 except in the tangent-kernel parametrisation.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def weight(
        self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Float[Array, "..."]:
        """Draw the weights of one layer."""

    def bias(self, key: PRNGKeyArray, size: int, fan_in: int) -> Float[Array, "size"]:
        """Draw the biases of one layer; zero unless the law says otherwise."""
        return jnp.zeros(size)

    def weight_scale(self, fan_in: int) -> float:
        """Factor of the weights in the forward pass."""
        return 1.0

    def bias_scale(self) -> float:
        """Factor of the biases in the forward pass."""
        return 1.0


class Xavier(Initialisation):
    """Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    name: ClassVar[str] = "xavier"

    def weight(self, key, shape, fan_in, fan_out):
        bound = math.sqrt(6 / (fan_in + fan_out))
        return jr.uniform(key, shape, minval=-bound, maxval=bound)


class LeCun(Initialisation):
    """N(0, 1 / fan_in) (LeCun, Bottou, Orr and Müller 1998)."""

    name: ClassVar[str] = "lecun"

    def weight(self, key, shape, fan_in, fan_out):
        return jr.normal(key, shape) / math.sqrt(fan_in)


class He(Initialisation):
    """N(0, 2 / fan_in) (He, Zhang, Ren and Sun 2015)."""

    name: ClassVar[str] = "he"

    def weight(self, key, shape, fan_in, fan_out):
        return jr.normal(key, shape) * math.sqrt(2 / fan_in)


class NearZero(Initialisation):
    """N(0, scale^2 / fan_in) with a small scale (Elkabetz and Cohen 2021)."""

    scale: float = 0.01
    name: ClassVar[str] = "near_zero"

    def __check_init__(self):
        check_positive(self.scale, "scale")

    def weight(self, key, shape, fan_in, fan_out):
        return jr.normal(key, shape) * (self.scale / math.sqrt(fan_in))


class TangentKernel(Initialisation):
    """N(0, 1), with the forward pass scaled instead (Jacot, Gabriel and Hongler 2018).

    Weights count `weight_std / sqrt(fan_in)`, biases `bias_std`: the parametrisation in which the
    tangent kernel has a limit as the widths grow.
    """

    weight_std: float = 1.0
    bias_std: float = 0.1
    name: ClassVar[str] = "tangent_kernel"

    def __check_init__(self):
        check_positive(self.weight_std, "weight_std")
        check_positive(self.bias_std, "bias_std", zero=True)

    def weight(self, key, shape, fan_in, fan_out):
        return jr.normal(key, shape)

    def bias(self, key, size, fan_in):
        return jr.normal(key, (size,))

    def weight_scale(self, fan_in):
        return self.weight_std / math.sqrt(fan_in)

    def bias_scale(self):
        return self.bias_std


class UniformFanIn(Initialisation):
    """Weights and biases uniform on +-1 / sqrt(fan_in): what PyTorch's layers start from."""

    name: ClassVar[str] = "uniform_fan_in"

    def weight(self, key, shape, fan_in, fan_out):
        bound = 1 / math.sqrt(fan_in)
        return jr.uniform(key, shape, minval=-bound, maxval=bound)

    def bias(self, key, size, fan_in):
        bound = 1 / math.sqrt(fan_in)
        return jr.uniform(key, (size,), minval=-bound, maxval=bound)


INITIALISATIONS = {
    law.name: law for law in (Xavier(), LeCun(), He(), NearZero(), TangentKernel(), UniformFanIn())
}


def initialisation(given: str | Initialisation) -> Initialisation:
    """An initialisation from its name or from itself.

    **Raises:** ValueError for an unknown name; TypeError for anything else.
    """
    if isinstance(given, Initialisation):
        return given
    if isinstance(given, str):
        return look_up(given, INITIALISATIONS, "init")
    raise TypeError(f"init: expected a name or an Initialisation, got {type(given).__name__}.")
