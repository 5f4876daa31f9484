"""Where a certificate gets its curvature from, and what that rests on."""

import abc
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray, PyTree

from .._checks import check_positive, check_positive_integer
from .._precision import jit
from .._trees import tree_axpy, tree_dtype, tree_random
from ..curvature import ExtremeEigenvalues, lower_bound
from ..curvature._bound import bound_at
from ..curvature._chain import has_kinks
from ..curvature._gradient_rounding import gradient_rounding
from ..curvature._upper_bound import upper_bound_at
from ..objectives import AbstractObjective, Objective, check_objective

How = Literal["closed form", "eigenvalue interval", "sampled", "assumed"]


class Hypothesis(NamedTuple):
    """Something that a certificate rests on, and how it was established."""

    statement: str
    how: How

    @property
    def proved(self) -> bool:
        """Whether nothing was sampled or assumed."""
        return self.how in ("closed form", "eigenvalue interval")


def listed(promise: str, proved: bool, hypotheses: tuple[Hypothesis, ...], limit: str) -> list[str]:
    """What a certificate says when it is printed, line by line."""
    grounds = (f"{h.how}: {h.statement}" for h in hypotheses)
    return [f"{promise}, {'proved' if proved else 'not proved'}", *grounds, limit]


def grounds_of(hypotheses: tuple[Hypothesis, ...], proved: bool) -> dict[str, Any]:
    """What a certificate rests on, as attributes of a data set."""
    return {"proved": proved, "hypotheses": [f"{h.how}: {h.statement}" for h in hypotheses]}


# The margin for rounding where it is not bounded, in units of absolute gradients' resolution.
_ROUNDING = 1e2

# Across a kink the gradient jumps, which no Hessian knows of.
_NO_KINK = Hypothesis("no kink lies between the flow and the run", "assumed")


class Curvature(NamedTuple):
    """Bounds in a ball: minus the lowest eigenvalue, the largest in size, and what they cost."""

    bending: float
    sharpness: float
    gradients: int


class Evidence(eqx.Module):
    """How curvature in balls around points of a path is bounded."""

    @abc.abstractmethod
    def check(self, objective: AbstractObjective, params: PyTree) -> None:
        """Whether this kind of evidence is to be had for a landscape.

        **Raises:** ValueError or TypeError, saying which hypothesis fails and what to do instead.
        """

    @abc.abstractmethod
    def in_ball(self, objective: AbstractObjective, params: PyTree, radius: float) -> Curvature:
        """Bounds in the ball of this radius around the parameters."""

    @abc.abstractmethod
    def rounding(
        self, objective: AbstractObjective, params: PyTree, radius: float
    ) -> tuple[float, int]:
        """How far computed gradients in the ball may be from gradients, and the cost in gradients.

        A bound where the evidence covers balls; else a margin.
        """

    @abc.abstractmethod
    def hypotheses(self, objective: AbstractObjective, params: PyTree) -> tuple[Hypothesis, ...]:
        """What the bounds rest on."""

    @property
    @abc.abstractmethod
    def covers_balls(self) -> bool:
        """Whether bounds hold all over a ball, rather than where it was looked at."""


class ClosedForm(Evidence):
    """Curvature from norms of weights: `tw.curvature.lower_bound` and `tw.curvature.upper_bound`.

    For the networks that these are for: linear, ReLU or leaky ReLU activations.
    """

    def check(self, objective, params):
        lower_bound(_with_data(objective), params)

    def in_ball(self, objective, params, radius):
        objective = _with_data(objective)
        size = jnp.asarray(radius, float)
        bound = float(bound_at(params, objective, size).value)
        # Each of the two costs about as much as two gradients.
        return Curvature(-bound, float(upper_bound_at(params, objective, size)), 4)

    def rounding(self, objective, params, radius):
        objective = _with_data(objective)
        return float(gradient_rounding(params, objective, jnp.asarray(radius, float))), 2

    def hypotheses(self, objective, params):
        # By the architecture: `predict` may hide its kinks, in a loop for instance.
        kinks = (_NO_KINK,) if has_kinks(params) else ()
        closed = "curvature in a tube around the path: norms of the weights"
        return Hypothesis(closed, "closed form"), *kinks

    @property
    def covers_balls(self):
        return True


class Intervals(Evidence):
    """Curvature from intervals of extreme eigenvalues, at points: for any network.

    At the points of the path, and at `probes` random ones on the sphere around each.

    **Arguments:**

    - `probes`: points on each sphere.
    - `tolerance`: see `tw.extreme_eigenvalues`.
    - `key`: for the random points; `jax.random.key(0)` by default.
    """

    probes: int = eqx.field(static=True, default=1)
    tolerance: float = eqx.field(static=True, default=1e-3)
    key: PRNGKeyArray | None = None

    def __check_init__(self):
        check_positive_integer(self.probes, "probes")
        check_positive(self.tolerance, "tolerance")

    def check(self, objective, params):
        objective.check(params)

    def in_ball(self, objective, params, radius):
        bending, sharpness, cost = -jnp.inf, 0.0, 0
        key = jr.key(0) if self.key is None else self.key
        # As an array, lest every radius be compiled anew.
        size = jnp.asarray(radius, tree_dtype(params))
        points = [
            params,
            *(_displaced(params, size, jr.fold_in(key, i)) for i in range(self.probes)),
        ]
        search = ExtremeEigenvalues(tolerance=self.tolerance)
        carry = search.initial(objective, params)
        for point in points:
            found, carry = search(objective, point, carry)
            bending = max(bending, -float(found.smallest.lower[0]))
            outer = jnp.maximum(found.largest.upper[0], -found.smallest.lower[0])
            sharpness = max(sharpness, float(outer))
            cost += 2 * int(found.products)
        return Curvature(bending, sharpness, cost)

    def rounding(self, objective, params, radius):
        eps = float(jnp.finfo(tree_dtype(params)).eps)
        return _ROUNDING * eps * float(_gradient_scale(objective, params)), 1

    def hypotheses(self, objective, params):
        return (
            Hypothesis("curvature at points of the path", "eigenvalue interval"),
            Hypothesis("curvature between these points, and around them", "sampled"),
            *((_NO_KINK,) if objective.kinks(params).exist else ()),
        )

    @property
    def covers_balls(self):
        return False


def _with_data(objective: AbstractObjective) -> Objective:
    return check_objective(objective, Objective, what="evidence in closed form")


@jit
def _gradient_scale(objective, params):
    return objective.gradient_scale(params)


@jit
def _displaced(params, radius, key):
    return tree_axpy(radius, tree_random(key, params), params)
