"""The networks of the theory, as Equinox modules that are their own PyTrees of parameters."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ._activations import ACTIVATIONS, Activation, leaky_relu
from ._convolutional import (
    Convolutional,
    PooledSection,
    StridedSection,
    convolutional,
    convolutional_pooled,
    convolutional_strided,
)
from ._fully_connected import FullyConnected, FullyConnectedSection, fully_connected
from ._initialisations import (
    INITIALISATIONS,
    He,
    Initialisation,
    LeCun,
    NearZero,
    TangentKernel,
    UniformFanIn,
    Xavier,
)
from ._residual import Residual, ResidualSection, residual
from ._section import ActivationName, InitialisationName, NetworkSection
from ._two_layer import TwoLayer, two_layer

__all__ = [
    "ACTIVATIONS",
    "INITIALISATIONS",
    "Activation",
    "ActivationName",
    "Convolutional",
    "FullyConnected",
    "FullyConnectedSection",
    "He",
    "Initialisation",
    "InitialisationName",
    "LeCun",
    "NearZero",
    "NetworkSection",
    "PooledSection",
    "Residual",
    "ResidualSection",
    "StridedSection",
    "TangentKernel",
    "TwoLayer",
    "UniformFanIn",
    "Xavier",
    "apply",
    "convolutional",
    "convolutional_pooled",
    "convolutional_strided",
    "fully_connected",
    "leaky_relu",
    "residual",
    "two_layer",
]


def apply(network: eqx.Module, inputs: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
    """Predictions of a network that takes one sample, on all samples.

    The `predict` of `Objective` for any Equinox module whose leaves are all trained.
    """
    return jax.vmap(network)(inputs)  # pyright: ignore[reportArgumentType]
