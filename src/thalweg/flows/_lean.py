"""Following the flow of a network so large that a few copies of its parameters fill the memory.

The second-order Runge-Kutta-Chebyshev method needs five arrays like the parameters, however many
stages it makes, if each stage is written over one that is needed no more. Compiled as a whole, a
step keeps twice as many. Here the stages are started from the host one by one, which costs nothing
beside a gradient of that size, and steps end at the saved times, so that nothing has to be kept
for interpolation. The price, gradients, is the same.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._precision import jit
from .._trees import tree_dtype, tree_norm, tree_scale, tree_size
from ..objectives import AbstractObjective
from ..solvers import RKC2
from ..solvers._chebyshev import Recurrence, combined, stages_for
from ._base import Flow
from ._march import most_growth, overgrown

_FEWEST_ITERATIONS, _MOST_ITERATIONS = 3, 30
# The spectral radius is looked at again after so many steps.
_PATIENCE = 10
_LARGEST_FACTOR, _SMALLEST_FACTOR, _SAFETY = 5.0, 0.2, 0.9


class LeanState(eqx.Module):
    """Where a flow stands: one copy of the parameters, and numbers."""

    y: PyTree[Array]
    t: Any
    h: Any
    h_before: Any
    radius: Any
    evaluations: Any
    steps: Any
    rejected: Any
    stalled: Any
    begin: Any

    @property
    def t_before(self):
        """Nothing is kept of the time before `t`."""
        return self.t


class LeanMethod(eqx.Module):
    """RKC2 with the smallest possible memory; the interface is that of `Method`."""

    flow: Flow
    rtol: float
    atol: float
    t_end: float
    longest: float
    eagerness: float
    solver: RKC2 = RKC2()

    @property
    def order(self) -> int:
        """The order of the one method."""
        return 2

    @property
    def frugal(self) -> bool:
        """One more copy of the parameters would be too many."""
        return True

    def start(self, objective: AbstractObjective, params: PyTree[Array]) -> LeanState:
        """Stand at time 0."""
        zero = np.zeros((), tree_dtype(params))
        none, no = np.asarray(0), np.asarray(False)
        return LeanState(params, zero, zero, zero, zero, none, none, none, no, zero)

    def to(
        self,
        objective: AbstractObjective,
        state: LeanState,
        target: Any,
        budget: int,
        origin: PyTree[Array],
    ) -> LeanState:
        """Go on to `target`, at most `budget` steps."""
        y, t, h = state.y, float(state.t), float(state.h)
        radius, spent = float(state.radius), int(state.evaluations)
        steps, rejected, stalled = int(state.steps), int(state.rejected), False
        target = min(float(target), self.t_end)
        eps = float(jnp.finfo(tree_dtype(y)).eps)
        f, speed = _field(self.flow, objective, np.asarray(t), y)
        spent += 1
        direction, age, h_before = None, _PATIENCE, float(state.h_before)
        limit = steps + rejected + budget
        while t < target and steps + rejected < limit:
            if age >= _PATIENCE:
                radius, direction, used = self._radius(objective, t, y, f, direction)
                spent, age = spent + used, 0
            if h == 0:
                h = self._first_step(float(speed), float(tree_norm(y)), radius)
            whole = min(h, self.longest, self.t_end - t)
            length = min(whole, target - t)
            reach = jnp.asarray(length * self.solver.safety * radius)
            stages = min(int(stages_for(reach)), round(self.eagerness * self.solver.max_stages))
            y1 = self._stages(objective, t, y, f, length, stages)
            f1, speed1 = _field(self.flow, objective, np.asarray(t + length), y1)
            spent += stages
            error = float(_error(y, y1, f, f1, np.asarray(length), self.rtol, self.atol))
            growth = np.log(float(speed1) / float(speed)) if float(speed) > 0 else 0.0
            excess = max(growth, 0.0) / (self.eagerness * most_growth(self.order))
            size = error + excess**3 if np.isfinite(error + excess) else np.inf
            factor = _SAFETY / max(size, 1e-12) ** (1 / 3) if np.isfinite(size) else 0.0
            factor = float(np.clip(factor, _SMALLEST_FACTOR, _LARGEST_FACTOR))
            if size <= 1:
                t = target if length == target - t else t + length
                y, f, speed, steps, h_before = y1, f1, speed1, steps + 1, length
                age += 1
                # A step cut short by a saved time says little about the next one.
                h = max(h, length * factor) if length < whole else length * factor
                stalled = bool(overgrown(y))
            else:
                rejected, age, h = rejected + 1, _PATIENCE, length * factor
                stalled = h <= 8 * eps * t or h == 0
            del y1, f1
            if stalled:
                break
        numbers = (np.asarray(x, state.t.dtype) for x in (t, h, h_before, radius))
        counts = (np.asarray(x) for x in (spent, steps, rejected, stalled))
        return LeanState(y, *numbers, *counts, begin=state.begin)

    def now(self, state: LeanState) -> tuple["LeanMethod", LeanState]:
        """The method and where it stands."""
        return self, state

    def at(
        self, objective: AbstractObjective, params: PyTree, state: LeanState, t: Any
    ) -> PyTree[Array]:
        """The solution where it stands, which is at the saved time."""
        return state.y

    def looked(self, state: LeanState, t: float) -> LeanState:
        """The state: to look at it costs nothing."""
        return state

    def early_error(self, params: PyTree, state: LeanState, t: float) -> float:
        """What is added to the distance of two solutions: one step's tolerance.

        Both end steps at the saved times, and there are no others where they could be compared, so
        that a crossing goes unseen.
        """
        if t == 0:
            return 0.0
        return self.atol * float(np.sqrt(tree_size(params))) + self.rtol * float(tree_norm(state.y))

    def unseen_error(self, state: LeanState) -> float:
        """Nothing that is not added already."""
        return 0.0

    def evaluations(self, state: LeanState) -> int:
        """Evaluations of the vector field so far."""
        return int(state.evaluations)

    def farthest(self, state: LeanState) -> float:
        """Not known: a gradient flow does not return."""
        return 0.0

    def accepted(self, state: LeanState) -> int:
        """Accepted steps so far."""
        return int(state.steps)

    def rejected(self, state: LeanState) -> int:
        """Rejected steps so far."""
        return int(state.rejected)

    def attempts(self, state: LeanState) -> int:
        """Attempted steps so far."""
        return self.accepted(state) + self.rejected(state)

    def _first_step(self, speed: float, size: float, radius: float) -> float:
        """A step along which the solution moves by a hundredth of its size, or relaxes."""
        ways = [0.01 * size / speed if speed > 0 and size > 0 else np.inf]
        ways.append(1 / radius if radius > 0 else np.inf)
        return self.eagerness * min(*ways, self.longest)

    def _stages(self, objective, t, y0, f0, h, stages):
        recurrence = Recurrence.start(float(stages), np)
        before = jax.tree.map(jnp.copy, y0)
        last = _first_stage(y0, f0, np.asarray(h * recurrence.c[0]))
        for _ in range(2, stages + 1):
            place = t + h * recurrence.c[0]
            coefficients, recurrence = recurrence.next()
            # Python numbers would be compiled in, anew for every stage.
            numbers = jax.tree.map(np.asarray, (place, h, coefficients))
            fixed = (self.flow, objective, *numbers, y0, f0, last)
            last, before = jax.block_until_ready(_stage(fixed, before)), last
        return last

    def _radius(self, objective, t, y, f, direction):
        """The spectral radius by power iteration on differences of the field."""
        eps = float(jnp.finfo(tree_dtype(y)).eps)
        size = float(tree_norm(y)) or float(np.sqrt(tree_size(y)))
        distance = np.sqrt(eps) * size
        direction = jax.tree.map(jnp.copy, f) if direction is None else direction
        if float(tree_norm(direction)) == 0:
            direction = jax.tree.map(jnp.ones_like, y)
        value, before, used = 0.0, 0.0, 0
        while used < _MOST_ITERATIONS:
            fixed = (self.flow, objective, np.asarray(t), y, f, np.asarray(distance))
            direction, value = _power(fixed, direction)
            value, used = float(value), used + 1
            if used >= _FEWEST_ITERATIONS and abs(value - before) <= 0.05 * value:
                break
            before = value
        return value, direction, used


@jit
def _field(flow, objective, t, y):
    f = flow.vector_field(jnp.asarray(t, tree_dtype(y)), y, objective)
    return f, tree_norm(f)


@jit
def _first_stage(y0, f0, length):
    return jax.tree.map(lambda y, f: y + jnp.asarray(length, y.dtype) * f, y0, f0)


@jit(donate="all-except-first")
def _stage(fixed, before):
    flow, objective, t, h, coefficients, y0, f0, last = fixed
    field = flow.vector_field(jnp.asarray(t, tree_dtype(last)), last, objective)

    def combine(y, a, b, f, start):
        length = jnp.asarray(h, y.dtype)
        return combined(coefficients, y, a, b, length * f, length * start)

    return jax.tree.map(combine, y0, last, before, field, f0)


@jit
def _error(y0, y1, f0, f1, h, rtol, atol):
    """Root mean square of the estimated local error of RKC2 over the tolerances."""

    def part(a, b, fa, fb):
        e = 0.8 * (a - b) + 0.4 * jnp.asarray(h, a.dtype) * (fa + fb)
        return jnp.sum((e / (atol + rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)))) ** 2)

    parts = jax.tree.leaves(jax.tree.map(part, y0, y1, f0, f1))
    return jnp.sqrt(sum(parts) / tree_size(y0))


@jit(donate="all-except-first")
def _power(fixed, direction):
    flow, objective, t, y, f, distance = fixed
    scale = distance / tree_norm(direction)
    moved = jax.tree.map(lambda a, v: a + scale.astype(a.dtype) * v, y, direction)
    there = flow.vector_field(jnp.asarray(t, tree_dtype(y)), moved, objective)
    image = jax.tree.map(jnp.subtract, there, f)
    size = tree_norm(image)
    return tree_scale(1 / jnp.where(size > 0, size, 1), image), size / distance
