"""What a flow converged to, or passes."""

from typing import Any

import xarray as xr

from .curvature import Eigenvalues
from .results import AbstractResult


class CriticalPoint(AbstractResult):
    """What a flow converged to, or passes.

    - `gradient_norm`: Euclidean norm of the gradient there.
    - `index`: how many eigenvalues of the Hessian are negative without doubt, counted up to 4.
    - `eigenvalues`: the smallest ones, with residuals.
    - `jump`: the distance from where the flow was left to here, `newton_steps` of Newton's method.
    - `found`: whether the flow converges to a critical point near here. The gradient also falls,
        without one, on the way to infinity, where a valley is nearly flat, and where a flow passes
        a saddle.
    - `isolated`: whether the smallest eigenvalue is positive beyond what the gradient left makes
        uncertain. A zero eigenvalue, along a valley of minima, comes out positive by as much.
    - `component`: how far the flow is from the saddle along directions in which the landscape
        curves down. However short, it grows. Zero where rounding hides it.
    """

    gradient_norm: float
    index: int
    eigenvalues: Eigenvalues
    jump: float
    newton_steps: int
    found: bool
    isolated: bool
    component: float = 0.0

    @property
    def smallest_eigenvalue(self) -> tuple[float, float]:
        """An interval that holds an eigenvalue: the smallest that was found."""
        return float(self.eigenvalues.lower[0]), float(self.eigenvalues.upper[0])

    @property
    def kind(self) -> str:
        """In words: minimum, degenerate or saddle, or none."""
        if self.index and not self.found:
            if self.component:
                return "no critical point near, where the landscape curves down: the flow goes on"
            return "where the landscape curves down, but has no slope along that beyond rounding"
        if self.index:
            return f"a saddle of index {self.index}" + (" or more" if self.index >= 4 else "")
        if not self.found:
            return "no critical point near (a degenerate one, or an infimum at infinity)"
        return "a minimum" if self.isolated else "a critical point with a flat direction"

    def lines(self) -> list[str]:
        """Its kind, the gradient left, and the smallest eigenvalue, in one line."""
        value, residual = float(self.eigenvalues.value[0]), float(self.eigenvalues.residual[0])
        return [
            f"{self.kind}, gradient norm {self.gradient_norm:.1e}, smallest eigenvalue {value:.3g}"
            f" +- {residual:.1e}"
        ]

    def to_xarray(self) -> xr.Dataset:
        """The smallest eigenvalues, and the numbers that the verdict rests on."""
        names = ("gradient_norm", "index", "jump", "newton_steps", "found", "isolated", "component")
        numbers = {name: getattr(self, name) for name in names}
        attributes = {"result": "critical point", "kind": self.kind}
        return self.eigenvalues.to_xarray().assign(numbers).assign_attrs(attributes)

    def plot(self, ax: Any = None) -> Any:
        """The smallest eigenvalues with their intervals."""
        return self.eigenvalues.plot(ax)
