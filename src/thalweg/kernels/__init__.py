"""Tangent kernels: of infinitely wide networks and of real ones, and what they predict."""

from ._convolutional import InfiniteConvolutional, convolutional
from ._fully_connected import InfiniteFullyConnected, fully_connected, two_layer
from ._infinite_network import InfiniteNetwork, Kernels

__all__ = [
    "InfiniteConvolutional",
    "InfiniteFullyConnected",
    "InfiniteNetwork",
    "Kernels",
    "convolutional",
    "fully_connected",
    "two_layer",
]
