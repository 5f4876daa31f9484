"""Curvature: extreme eigenvalues of the Hessian, as intervals."""

from ._bound import lower_bound as lower_bound
from ._curvature_bound import CurvatureBound as CurvatureBound
from ._eigenvalues import Eigenvalues as Eigenvalues
from ._extreme import Carry as Carry
from ._extreme import ExtremeEigenvalues as ExtremeEigenvalues
from ._extreme import extreme_eigenvalues as extreme_eigenvalues
from ._upper_bound import upper_bound as upper_bound
