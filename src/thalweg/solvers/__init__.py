"""Solvers for stiff and for discontinuous flows, as ordinary diffrax solvers."""

from ._averaged_midpoint import AveragedMidpoint as AveragedMidpoint
from ._averaged_midpoint import no_average as no_average
from ._rkc2 import RKC2 as RKC2
from ._rkc4 import RKC4 as RKC4
from ._stabilised import StabilisedSolver as StabilisedSolver
from ._stabilised import StabilisedState as StabilisedState
