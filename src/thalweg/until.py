"""Where a flow is followed to: the end of `tw.integrate(..., until=...)`."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._checks import check_positive
from ._trees import tree_axpy, tree_dot, tree_dtype, tree_norm, tree_size, tree_sub
from .curvature import Eigenvalues, extreme_eigenvalues
from .flows import Arrival
from .objective import Objective

# Up to this many parameters Newton's equations are solved with the whole Hessian.
_DENSE = 200
_NEWTON_STEPS = 30
# Newton's method is tried when the gradient has fallen to this part of what it was last tried at.
_TRY_AGAIN = 0.03
# The part of the way since the start that Newton's method may jump: to a point that stands alone,
# and within a flat valley, where it does not come out exactly where the flow does.
_LONGEST_JUMP, _VALLEY_JUMP = 0.05, 1e-4
_HARDLY = 1e-6
_EIGENVALUES = 4
_SHIFT = 0.1
# What Newton's method makes of the gradient at the least where it converges; towards infinity each
# step makes of an exponential 1/e of it.
_CONVERGES = 0.1
# A point stands alone if the gradient left there moves it by no more than this part of its size.
_ALONE = 1e-3


class CriticalPoint(eqx.Module):
    """What a flow converged to.

    - `gradient_norm`: Euclidean norm of the gradient there.
    - `index`: how many eigenvalues of the Hessian are negative without doubt, counted up to 4.
    - `eigenvalues`: the smallest ones, with residuals.
    - `jump`: the distance from where the flow was left to here, `newton_steps` of Newton's method.
    - `found`: whether a critical point is near at all: Newton's method converges to one. The
        gradient also falls, without one, on the way to infinity, and where a flow passes a saddle.
    - `isolated`: whether the smallest eigenvalue is positive beyond what the gradient left makes
        uncertain. A zero eigenvalue, along a valley of minima, comes out positive by as much.
    """

    gradient_norm: float
    index: int
    eigenvalues: Eigenvalues
    jump: float
    newton_steps: int
    found: bool
    isolated: bool

    @property
    def smallest_eigenvalue(self) -> tuple[float, float]:
        """An interval that holds an eigenvalue: the smallest that was found."""
        return float(self.eigenvalues.lower[0]), float(self.eigenvalues.upper[0])

    @property
    def kind(self) -> str:
        """In words: minimum, degenerate or saddle, or none."""
        if self.index and not self.found:
            return "no critical point near, where the landscape curves down: the flow goes on"
        if self.index:
            return f"a saddle of index {self.index}" + (" or more" if self.index >= 4 else "")
        if not self.found:
            return "no critical point near (a degenerate one, or an infimum at infinity)"
        return "a minimum" if self.isolated else "a critical point with a flat direction"

    def __str__(self):
        value, residual = float(self.eigenvalues.value[0]), float(self.eigenvalues.residual[0])
        return (
            f"{self.kind}, gradient norm {self.gradient_norm:.1e}, smallest eigenvalue {value:.3g}"
            f" +- {residual:.1e}"
        )


class GradientNorm:
    """See `gradient_norm`."""

    def __init__(self, tolerance: float):
        check_positive(tolerance, "tolerance")
        self.tolerance = float(tolerance)
        self._last = math.inf

    def start(self, objective: Objective, params: PyTree) -> int:
        """Forget earlier flows. Costs a gradient."""
        self._first = params
        self._last = float(_gradient_norm(objective, params))
        return 1

    def __call__(self, objective: Objective, params: PyTree, error: float, rate: float) -> Arrival:
        """Whether the flow is where it is going, or so near that Newton's method finds the place.

        `error` is that of `params`; slower than `rate`, nothing has relaxed yet.
        """
        norm, cost = float(_gradient_norm(objective, params)), 1
        arrived = norm <= self.tolerance
        if not math.isfinite(norm) or not (arrived or norm <= _TRY_AGAIN * self._last):
            return Arrival(cost=cost)
        self._last = norm
        point, final, steps, spent = self._newton(objective, params, norm, rate)
        cost += spent
        jump = float(tree_norm(tree_sub(point, params)))
        moved = float(tree_norm(tree_sub(params, self._first)))
        # Whoever starts at a critical point has not moved.
        hardly = _HARDLY * float(tree_norm(params))
        reach = _LONGEST_JUMP * moved + hardly
        converges = final <= _CONVERGES * norm or jump <= hardly
        near = jump <= reach and final <= self.tolerance and converges
        if arrived and not near:
            point, final, steps, jump = params, norm, 0, 0.0
        elif not near:
            return Arrival(cost=cost)
        count = min(_EIGENVALUES, tree_size(params))
        found = extreme_eigenvalues(objective, point, largest=0, smallest=count, tolerance=1e-6)
        cost += 2 * int(found.products)
        low = float(found.lower[0])
        size = float(tree_norm(point))
        length = max(size, moved) or 1.0
        # Curvature is told from none where it weighs more, over the way, than the gradient left.
        index = int(jnp.sum((found.upper < 0) & (-found.upper * length >= final)))
        if index and not arrived:
            # The flow is passing a saddle.
            return Arrival(cost=cost)
        # A gradient that Newton's method cannot lower, where the landscape curves down, is that of
        # a flow on its way, unless it is so small that the flow stands on a critical point.
        near = near and not (index and steps == 0 and final > -low * hardly)
        isolated = near and low > 0 and final <= _ALONE * low * length
        if isolated:
            # How the landscape curves where Newton's next steps may lead, along its flattest line.
            there = _toward(objective, point, found, 2 * final / low)
            cost += 4
            isolated = there > 0.5 * low
            # A gradient that never vanishes, over a point of inflection, is no critical point.
            near = near and there > -low * _CONVERGES
        limit = CriticalPoint(final, index, found, jump, steps, near, isolated)
        if not isolated and jump > _VALLEY_JUMP * moved and not arrived:
            return Arrival(cost=cost)
        if index and not near:
            message = (
                f"the gradient norm fell to {norm:.1e}, but no critical point is near, and with an"
                f" eigenvalue of {float(found.value[0]):.3g} the flow goes on: a smaller tolerance"
                " would tell where to."
            )
        elif not limit.found:
            message = (
                f"the gradient norm fell to {norm:.1e}, but no critical point that stands alone is"
                " near: it may be a degenerate one, or the infimum may lie at infinity."
            )
        else:
            message = f"converged to {limit}."
        # An isolated critical point is where it is, however the flow came near it; along a valley
        # the flow's own error stays, and it may lead elsewhere by as much as the jump.
        eps = float(jnp.finfo(tree_dtype(params)).eps)
        error = final / low if isolated else error + jump
        return Arrival(point, limit, error + 4 * eps * size, cost, message)

    def _newton(self, objective, params, norm, rate):
        """Newton's method, as long as it makes the gradient smaller.

        Each step is one of the implicit Euler method on the flow itself, ten times as long as the
        one before and the first as long as the whole way so far. Directions in which the flow has
        come to rest see no difference to Newton's method; along a flat valley, where curvature is
        noise, it moves no farther than the flow does.

        Returns where it ends, the gradient norm there, steps and cost.
        """
        point, now, cost, steps = params, norm, 0, 0
        solve = _dense_step if tree_size(params) <= _DENSE else _krylov_step
        while steps < _NEWTON_STEPS and (now > self.tolerance or steps == 0 < now):
            trial, spent = solve(objective, point, _SHIFT * rate / 10**steps)
            new = float(_gradient_norm(objective, trial))
            cost += 1 + int(spent)
            if not new < 0.5 * now:
                break
            point, now, steps = trial, new, steps + 1
        return point, now, steps, cost


def gradient_norm(tolerance: float) -> GradientNorm:
    """Follow a flow until the Euclidean norm of its gradient is at most `tolerance`.

        ending = tw.until.gradient_norm(1e-12)
        flow = tw.integrate(tw.GradientFlow(), objective, params, until=ending)
        print(flow.limit)

    The flow is followed until Newton's method, from where it is, converges at once (with the whole
    Hessian up to 200 parameters, with conjugate gradients on Hessian-vector products beyond), so
    that the last digits cost next to nothing; the jump is at most a twentieth of the way that the
    flow came. Critical points that the flow merely passes are recognised by a negative eigenvalue.
    What was reached is in `Trajectory.limit`, a `CriticalPoint`.

    **Raises:** ValueError for a tolerance that is not positive.
    """
    return GradientNorm(tolerance)


@eqx.filter_jit
def _gradient_norm(objective, params) -> Float[Array, ""]:
    return tree_norm(objective.gradient(params))


def _toward(objective, params, eigenvalues, distance) -> float:
    """The lower curvature along the flattest line, at this distance on its two sides."""
    flat = jax.tree.map(lambda v: v[0], eigenvalues.vectors)
    return min(
        float(_curvature(objective, tree_axpy(side * distance, flat, params), flat))
        for side in (1.0, -1.0)
    )


@eqx.filter_jit
def _curvature(objective, params, vector) -> Float[Array, ""]:
    return tree_dot(vector, objective.hvp(params, vector))


@eqx.filter_jit
def _dense_step(objective, params, shift) -> tuple[PyTree, Any]:
    flat, unravel = ravel_pytree(params)

    def product(v):
        return ravel_pytree(objective.hvp(params, unravel(v)))[0]

    hessian = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype))
    values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2)
    gradient = ravel_pytree(objective.gradient(params))[0]
    # Where the landscape curves down, implicit Euler is no guide: such steps would go uphill.
    along = vectors.T @ gradient / (jnp.abs(values) + shift)
    return unravel(flat - vectors @ along), 1 + 2 * flat.size


@eqx.filter_jit
def _krylov_step(objective, params, shift) -> tuple[PyTree, Any]:
    gradient = objective.gradient(params)
    operator = lineax.FunctionLinearOperator(
        lambda v: tree_axpy(shift, v, objective.hvp(params, v)),
        jax.eval_shape(lambda: gradient),
        lineax.positive_semidefinite_tag,
    )
    solver = lineax.CG(rtol=1e-3, atol=0.0, norm=tree_norm, max_steps=500)
    solution = lineax.linear_solve(operator, gradient, solver, throw=False)
    step = solution.value
    return tree_sub(params, step), 1 + 2 * solution.stats["num_steps"]
