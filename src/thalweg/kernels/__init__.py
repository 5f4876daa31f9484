"""Tangent kernels: of infinitely wide networks and of real ones, and what they predict."""

from ._best import best_gradient_descent, best_heavy_ball, best_nesterov
from ._convolutional import InfiniteConvolutional, convolutional
from ._drift import KernelDrift
from ._empirical import EmpiricalKernel, empirical
from ._fully_connected import InfiniteFullyConnected, fully_connected, two_layer
from ._infinite_network import InfiniteNetwork, Kernels
from ._modes import Modes, modes
from ._predicted_ensemble import predicted_ensemble
from ._predicted_rate import PredictedRate, heavy_ball_energy, predicted_rate
from ._predicted_run import predicted_run
from ._prediction import Prediction
from ._rate import Rate, rate
from ._width import SufficientWidth, sufficient_width

__all__ = [
    "EmpiricalKernel",
    "InfiniteConvolutional",
    "InfiniteFullyConnected",
    "InfiniteNetwork",
    "KernelDrift",
    "Kernels",
    "Modes",
    "PredictedRate",
    "Prediction",
    "Rate",
    "SufficientWidth",
    "best_gradient_descent",
    "best_heavy_ball",
    "best_nesterov",
    "convolutional",
    "empirical",
    "fully_connected",
    "heavy_ball_energy",
    "modes",
    "predicted_ensemble",
    "predicted_rate",
    "predicted_run",
    "rate",
    "sufficient_width",
    "two_layer",
]
