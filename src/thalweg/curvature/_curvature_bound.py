"""A bound on the smallest eigenvalue of the Hessian."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._numbers import significant
from ..results import AbstractResult, axes_of
from ._eigenvalues import Eigenvalues

_SOURCES = (
    'Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural networks", Advances'
    " in Neural Information Processing Systems, 2021 (the bound by norms, for a point).",
)


class CurvatureBound(AbstractResult):
    """No eigenvalue of the Hessian is below `value`, at the parameters and in the ball around them.

    - `value`: at most 0, or at most the rate of weight decay.
    - `radius`: of the ball, a Euclidean distance over all parameters; 0 for the point alone.
    - `interaction`: shape `(layers, layers)`, symmetric: how strongly each pair of layers bends the
        network, a bound on the Hessian's block beyond its Gauss-Newton part. `value` is minus its
        largest eigenvalue, and the rate of weight decay more.

    Where a network has kinks, the Hessian is that of the smooth pieces, which is what it is almost
    everywhere; a kink itself bends more than any number.
    """

    value: Float[Array, ""]
    radius: float | Float[Array, ""]
    interaction: Float[Array, "layers layers"]

    def __float__(self) -> float:
        return float(self.value)

    def lines(self) -> list[str]:
        """The bound and where it holds."""
        where = f" within {significant(float(self.radius))}" if float(self.radius) > 0 else ""
        return [
            f"no eigenvalue of the Hessian is below {significant(float(self.value), 6)}{where}",
            f"{len(self.interaction)} layers; a proved bound, which has no error bar",
        ]

    def to_xarray(self) -> xr.Dataset:
        """The bound, the radius, and the matrix of layers that it is made of."""
        variables = {
            "value": float(self.value),
            "radius": float(self.radius),
            "interaction": (["layer", "other_layer"], np.asarray(self.interaction)),
        }
        attributes = {"result": "curvature bound", "references": list(_SOURCES)}
        return xr.Dataset(variables, attrs=attributes)

    def plot(self, ax: Any = None) -> Any:
        """How strongly each pair of layers bends the network."""
        ax = axes_of(ax, "layer", "layer")
        places = np.arange(1, len(self.interaction) + 1)
        image = ax.imshow(np.asarray(self.interaction), cmap="viridis")
        ax.set_xticks(places - 1, places)
        ax.set_yticks(places - 1, places)
        ax.figure.colorbar(image, ax=ax, label="bound on the second derivatives")
        return ax

    def tightness(self, eigenvalues: Eigenvalues) -> float:
        """The bound over the smallest eigenvalue found: 1 is best, infinite where none is negative.

            bound.tightness(tw.extreme_eigenvalues(objective, params))

        **Raises:** ValueError if no smallest eigenvalue is among them, or if the eigenvalue's
        interval contradicts the bound.
        """
        if not eigenvalues.counts[1]:
            raise ValueError("eigenvalues: holds no smallest one.")
        smallest = eigenvalues.smallest
        if float(smallest.upper[0]) < float(self.value):
            raise ValueError(
                f"eigenvalues: {float(smallest.value[0]):.6g} is below the bound"
                f" {float(self.value):.6g}; were they computed at other parameters?"
            )
        least = float(smallest.value[0])
        return float(self.value) / least if least < 0 else np.inf
