"""The networks of the theory, as Equinox modules that are their own PyTrees of parameters."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ._activations import ACTIVATIONS as ACTIVATIONS
from ._activations import Activation as Activation
from ._activations import leaky_relu as leaky_relu
from ._convolutional import Convolutional as Convolutional
from ._convolutional import convolutional_pooled as convolutional_pooled
from ._convolutional import convolutional_strided as convolutional_strided
from ._fully_connected import FullyConnected as FullyConnected
from ._fully_connected import fully_connected as fully_connected
from ._initialisations import INITIALISATIONS as INITIALISATIONS
from ._initialisations import He as He
from ._initialisations import Initialisation as Initialisation
from ._initialisations import LeCun as LeCun
from ._initialisations import NearZero as NearZero
from ._initialisations import TangentKernel as TangentKernel
from ._initialisations import UniformFanIn as UniformFanIn
from ._initialisations import Xavier as Xavier


def apply(network: eqx.Module, inputs: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
    """Predictions of a network that takes one sample, on all samples.

    The `predict` of `Objective` for any Equinox module whose leaves are all trained.
    """
    return jax.vmap(network)(inputs)  # pyright: ignore[reportArgumentType]
