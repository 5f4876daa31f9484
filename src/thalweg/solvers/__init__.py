"""Solvers for stiff and for discontinuous flows, as ordinary diffrax solvers."""

from ._averaged_midpoint import AveragedMidpoint, no_average
from ._bdf import BDF
from ._counted import CountedSolver, PacedSolver
from ._deflation import deflation_memory as deflation_memory
from ._equations import Equation as Equation
from ._equations import FirstOrder as FirstOrder
from ._equations import SecondOrder as SecondOrder
from ._rkc2 import RKC2
from ._rkc4 import RKC4
from ._stabilised import StabilisedSolver, StabilisedState

__all__ = [
    "BDF",
    "RKC2",
    "RKC4",
    "AveragedMidpoint",
    "CountedSolver",
    "PacedSolver",
    "StabilisedSolver",
    "StabilisedState",
    "no_average",
]
