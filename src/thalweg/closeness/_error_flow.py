"""A flow together with the errors of a method that discretises it, by order in its step."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._trees import tree_axpy
from ..flows import Flow
from ..objectives import AbstractObjective
from ..optimizers import GradientDescent, Optimizer


class Extended(AbstractObjective):
    """A landscape for parameters followed by errors, on which it does not depend."""

    objective: AbstractObjective

    def value(self, params):
        return self.objective.value(params[0])

    def gradient(self, params):
        return self._beside_errors(self.objective.gradient(params[0]), params)

    def value_and_gradient(self, params):
        value, gradient = self.objective.value_and_gradient(params[0])
        return value, self._beside_errors(gradient, params)

    def hvp(self, params, vector):
        return self._beside_errors(self.objective.hvp(params[0], vector[0]), params)

    def along(self, displacement):
        return Extended(self.objective.along(displacement[0]))

    def kinks(self, params):
        return self.objective.kinks(params[0])

    def kink_pattern(self, params):
        return self.objective.kink_pattern(params[0])

    def check(self, params):
        self.objective.check(params[0])

    def _beside_errors(self, first, params):
        return first, *(jax.tree.map(jnp.zeros_like, errors) for errors in params[1:])


def _without_errors(objective: Any) -> AbstractObjective:
    """The landscape of which an `Extended` one is made."""
    return objective.objective


class ErrorFlow(Flow):
    """The optimizer's limit flow, and beside it the error of the optimizer per time step.

    With h the time of a step, step k is at `theta(t) + h v(t) + O(h^2)`, `t = k h`. Where the
    flow's state y obeys `y' = F(t, y)`, v is the parameters' part of a solution of
    `e' = DF(t, y) e + source`, and the optimizer knows its source. Parameters are (parameters, v),
    and what is of higher order, on an `Extended` objective.
    """

    optimizer: Optimizer
    base: Flow
    name: ClassVar[str] = "flow with its discretisation's error"
    # Gradient-equivalents of one evaluation.
    price: ClassVar[int]

    def initial_state(self, params):
        start, *errors = params
        states = (jax.tree.map(jnp.zeros_like, self.base.initial_state(e)) for e in errors)
        return self.base.initial_state(start), *states

    def params(self, state):
        return tuple(self.base.params(part) for part in state)

    def distance(self, a, b, h):
        pairs = zip(a, b, strict=True)
        return jnp.sqrt(sum(self.base.distance(x, y, h) ** 2 for x, y in pairs))

    def response(self, eigenvalue: Any, time: Any):
        """The response of the base flow."""
        return self.base.response(eigenvalue, time)


class GradientErrorFlow(ErrorFlow):
    """Without momentum: `v' = F'(v - bent F)`."""

    real_spectrum: ClassVar[bool] = True
    price: ClassVar[int] = 3

    def vector_field(self, t, state, objective):
        now, error = state
        landscape = _without_errors(objective)
        _, _, of_bent = self.optimizer.error_source(t)

        def field(y):
            return self.base.vector_field(t, y, landscape)

        # The Hessian acts on the error and on the velocity at once.
        direction = tree_axpy(-of_bent, field(now), error)
        return jax.jvp(field, (now,), (direction,))


class EulerErrorFlow(ErrorFlow):
    """Two orders for gradient descent: `theta + h v + h^2 w`.

    Gradient descent follows, up to h^3, the flow of the field
    `F - h/2 F'F + h^2 (F''(F, F)/12 + F'F'F/3)` (backward error analysis of Euler's method: Hairer,
    Lubich and Wanner, Geometric Numerical Integration (2006), section IX.1). Sorted by powers of h,
    with `u = v - F/2`:

        v' = F'u,    w' = F'(w - v'/2 + F'F/12) + F''(u, u)/2 - F''(F, F)/24.
    """

    real_spectrum: ClassVar[bool] = True
    # A gradient, three products with the Hessian, two second derivatives along a line.
    price: ClassVar[int] = 15

    def vector_field(self, t, state, objective):
        now, first, second = state
        landscape = _without_errors(objective)

        def field(y):
            return self.base.vector_field(t, y, landscape)

        def along(direction):
            def slope(y):
                return jax.jvp(field, (y,), (direction,))[1]

            return jax.jvp(slope, (now,), (direction,))

        velocity = field(now)
        drift, bent = along(tree_axpy(-0.5, velocity, first))
        acceleration, turned = along(velocity)
        direction = tree_axpy(-0.5, drift, tree_axpy(1 / 12, acceleration, second))
        pulled = jax.jvp(field, (now,), (direction,))[1]
        change = tree_axpy(0.5, bent, tree_axpy(-1 / 24, turned, pulled))
        return velocity, drift, change


class MomentumErrorFlow(ErrorFlow):
    """With momentum: states are of position and velocity."""

    real_spectrum: ClassVar[bool] = False
    price: ClassVar[int] = 2

    @property
    def early_cost(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base flow's cost of an early state, in evaluations of this flow."""
        return -(-self.base.early_cost // self.price)

    @property
    def first_cost(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base flow's first cost, or the gradient that kicks, in evaluations of this flow."""
        return -(-max(self.base.first_cost, 1) // self.price)

    def vector_field(self, t, state, objective):
        now, error = state
        landscape = _without_errors(objective)
        of_acceleration, of_velocity, of_bent = self.optimizer.error_source(t)
        velocity = now[1]

        def field(y):
            return self.base.vector_field(t, y, landscape)

        # The Hessian acts on the error and on the velocity at once.
        direction = tree_axpy(-of_bent, velocity, error[0]), error[1]
        slope, change = jax.jvp(field, (now,), (direction,))
        added = jax.tree.map(
            lambda c, a, v: c + of_acceleration * a + of_velocity * v, change[1], slope[1], velocity
        )
        return slope, (error[1], added)

    def first_time(self, objective, params, tolerance, latest):
        landscape = _without_errors(objective)
        # Of the error's series two terms are known, as of the flow's, that start one power lower.
        return 0.5 * self.base.first_time(landscape, params[0], tolerance, latest)

    def early_state(self, objective, params, t):
        start, _ = params
        landscape = _without_errors(objective)
        state = self.base.early_state(landscape, start, t)
        if self.base.first_cost:
            return state, self._early_error(start, state, t)
        kick = self.optimizer.error_kick
        still = jax.tree.map(jnp.zeros_like, start)
        return state, (still, jax.tree.map(lambda g: kick * g, landscape.gradient(start)))

    def _early_error(self, start, state, t):
        # From theta = start + a t^2 + b t^4 to the error's c a t + d b t^3.
        first, second = self.optimizer.error_series
        some = jnp.where(t > 0, t, 1)
        mean = jax.tree.map(lambda x, y: (x - y) / some**2, state[0], start)
        slope = jax.tree.map(lambda v: v / (2 * some), state[1])
        a = jax.tree.map(lambda m, s: 2 * m - s, mean, slope)
        bent = jax.tree.map(lambda m, s: s - m, mean, slope)
        error = jax.tree.map(lambda x, y: t * (first * x + second * y), a, bent)
        speed = jax.tree.map(lambda x, y: first * x + 3 * second * y, a, bent)
        return error, speed


def error_flow(optimizer: Optimizer, order: int) -> ErrorFlow:
    """The flow of an optimizer with its error, up to an order in its step.

    **Raises:** ValueError for an optimizer whose error is not known to that order.
    """
    base = optimizer.limit()
    optimizer.error_source(1.0)
    # As arrays, lest every step size be compiled anew.
    optimizer = jax.tree.map(jnp.asarray, optimizer)
    if order == 1:
        return (GradientErrorFlow if base.real_spectrum else MomentumErrorFlow)(optimizer, base)
    if order == 2 and isinstance(optimizer, GradientDescent):
        return EulerErrorFlow(optimizer, base)
    raise ValueError(
        f"order: for {optimizer.name} the law is known to order"
        f" {'1 and 2' if isinstance(optimizer, GradientDescent) else '1'}, not {order}."
    )
