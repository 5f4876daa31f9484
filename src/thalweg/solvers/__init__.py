"""Stabilised explicit solvers, as ordinary diffrax solvers."""

from ._rkc2 import RKC2 as RKC2
from ._rkc2 import RKC2State as RKC2State
from ._stabilised import StabilisedSolver as StabilisedSolver
