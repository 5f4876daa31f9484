"""What moves a point along the eigenvectors of its Hessian, beside what rounding says moves it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._newton import DENSE, eigenbasis
from ._precision import jit
from ._trees import tree_size
from .curvature import Eigenvalues
from .objectives import AbstractObjective

# The parameters are moved about by a rounding so many times, and what that does to the gradient is
# multiplied, to see what is rounding alone.
_DRAWS, _SAFETY = 4, 4.0
# Eigenvalues of a matrix are known up to so many roundings of its norm, times its size.
_EIGENVALUE_ROUNDINGS = 8
# The cost of `gradient_and_rounding`.
ROUNDING_COST = _DRAWS + 1


class Modes(NamedTuple):
    """The gradient at a point, along eigenvectors of a Hessian; one entry per eigenvector.

    - `curvature`: the eigenvalues.
    - `resolution`: how far they are known.
    - `slope`: the gradient along them.
    - `rounding`: what rounding the parameters and evaluating the gradient make of that.
    - `complete`: whether these are all the modes that there are.
    """

    curvature: Float[np.ndarray, "modes"]
    resolution: Float[np.ndarray, "modes"]
    slope: Float[np.ndarray, "modes"]
    rounding: Float[np.ndarray, "modes"]
    complete: bool
    cost: int

    @property
    def downward(self) -> "Modes":
        """The modes whose curvature is negative beyond its error."""
        return self.part(self.curvature < -self.resolution)

    @property
    def upward(self) -> "Modes":
        """The modes whose curvature is positive beyond its error."""
        return self.part(self.curvature > self.resolution)

    @property
    def flat(self) -> "Modes":
        """The modes whose curvature may be zero, by its error."""
        return self.part(np.abs(self.curvature) <= self.resolution)

    @property
    def real_slope(self) -> Float[np.ndarray, "modes"]:
        """As much of the slope as rounding does not account for, without its sign."""
        return np.maximum(np.abs(self.slope) - self.rounding, 0)

    @property
    def distance(self) -> float:
        """How far the point that Newton's method leads to is along these modes."""
        return float(np.linalg.norm(self.real_slope / np.abs(self.curvature)))

    def part(self, rows) -> "Modes":
        """Some of the modes."""
        return self._replace(
            curvature=self.curvature[rows],
            resolution=self.resolution[rows],
            slope=self.slope[rows],
            rounding=self.rounding[rows],
        )


def modes(
    objective: AbstractObjective, point: PyTree, slopes: Float[Array, "rows n"], found: Eigenvalues
) -> Modes:
    """The modes at `point`: all of them up to 200 parameters, those that were `found` beyond.

    `slopes` is what `gradient_and_rounding` gives, at the point or near it.
    """
    if tree_size(point) <= DENSE:
        values, vectors = (np.asarray(a, float) for a in eigenbasis(objective, point))
        eps = float(jnp.finfo(slopes.dtype).eps)
        known = _EIGENVALUE_ROUNDINGS * eps * len(values) * np.abs(values).max()
        resolution, cost = np.full(len(values), known), 2 * len(values)
    else:
        values = np.asarray(found.value, float)
        vectors = np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(found.vectors), float).T
        resolution, cost = np.asarray(found.residual, float), 0
    along = np.asarray(slopes, float) @ vectors
    rounding = _SAFETY * np.abs(along[1:]).max(0)
    return Modes(values, resolution, along[0], rounding, len(values) == tree_size(point), cost)


@jit
def gradient_and_rounding(objective: AbstractObjective, params: PyTree) -> Float[Array, "rows n"]:
    """The gradient and, in further rows, how it changes when all parameters move by a rounding."""
    flat, unravel = ravel_pytree(params)
    eps = jnp.finfo(flat.dtype).eps

    def gradient(at):
        return ravel_pytree(objective.gradient(unravel(at)))[0]

    here = gradient(flat)
    signs = jr.rademacher(jr.key(0), (_DRAWS, flat.size), flat.dtype)
    there = jax.lax.map(lambda sign: gradient(flat * (1 + eps * sign)), signs)
    return jnp.concatenate([here[None], there - here])


def rounding_norm(slopes: Float[Array, "rows n"]) -> float:
    """The norm of a gradient that is rounding alone."""
    # Scaled, since squares of small numbers underflow.
    rows = np.asarray(slopes[1:], float)
    return _SAFETY * float(np.linalg.norm(rows, axis=1).max())
