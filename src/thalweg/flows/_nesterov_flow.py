"""Nesterov flow: a ball whose friction fades."""

import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from .._checks import check_positive
from .._section import Positive
from .._trees import tree_dtype, tree_norm
from ._base import Decay, SecondOrderFlow
from ._section import FlowSection

# From this parameter on 0F1 is computed here.
_LARGE_ORDER = 100

# The largest ratio of successive terms up to which the series stands for the flow.
_SMALL = 0.01
# Times that the end of the series is corrected by what it leaves of the equation.
_CORRECTIONS = 3


class NesterovFlow(SecondOrderFlow):
    """`theta'' + (damping / t) theta' + grad f(theta) = 0`, from rest.

    The limit of Nesterov's method with momentum `(k - 1) / (k + damping - 1)`, one step taking
    `sqrt(step_size)` of time; `damping = 3` is the classical choice.

    **Raises:** ValueError for a damping that is not positive.

    ??? cite "Reference"

        Su, Boyd and Candès, "A differential equation for modeling Nesterov's accelerated gradient
        method: theory and insights", Journal of Machine Learning Research 17 (2016) 1-43.
    """

    damping: float | Float[Array, ""] = 3.0
    name: ClassVar[str] = "Nesterov flow"
    early_cost: ClassVar[int] = 3
    first_cost: ClassVar[int] = 3 + _CORRECTIONS

    def __check_init__(self):
        check_positive(self.damping, "damping")

    def vector_field(self, t, state, objective):
        params, velocity = state
        gradient = objective.gradient(params)
        # At t = 0 the quotient velocity / t stands for its limit, theta''(0), and the equation
        # becomes theta''(0) = -grad f / (1 + damping).
        start = t <= 0
        rate = self.damping / jnp.where(start, 1, t)

        def acceleration(v, g):
            moving = -jnp.asarray(rate, v.dtype) * v - g
            return jnp.where(start, -g / (1 + self.damping), moving)

        return velocity, jax.tree.map(acceleration, velocity, gradient)

    # Near t = 0, `theta(t) = theta(0) + a t^2 + b t^4 + O(t^6)` with
    # `a = -grad f / (2 (1 + damping))` and `b = -Hess f a / (4 (3 + damping))`.

    def first_time(self, objective, params, tolerance, latest):
        gradient, a, b = self._series(objective, params)
        first, second = tree_norm(a), tree_norm(b)
        # If the terms decreased like those of a geometric series in q t^2.
        q = second / jnp.where(first > 0, first, 1)
        omitted = first * q**2
        regular = (tolerance / jnp.where(omitted > 0, omitted, 1)) ** (1 / 6)
        short = jnp.sqrt(_SMALL / jnp.where(q > 0, q, 1))
        t = jnp.where(q > 0, jnp.minimum(regular, short), latest)
        t = jnp.minimum(t, latest).astype(tree_dtype(params))

        def corrected(_, t):
            # What the series leaves of the equation is (30 + 6 damping) c t^4 with the term c t^6
            # that it omits; near an inflection of the landscape q says nothing about that.
            there = objective.gradient(self._sum(params, a, b, t)[0])
            inertia = (12 + 4 * self.damping) * t**2
            left = jax.tree.map(lambda g, h, y: g - h + inertia * y, there, gradient, b)
            error = tree_norm(left) * t**2 / (30 + 6 * self.damping)
            factor = 0.9 * (tolerance / jnp.where(error > 0, error, tolerance)) ** (1 / 6)
            return t * jnp.where(jnp.isfinite(error), jnp.minimum(factor, 1), 0.1).astype(t.dtype)

        t = jax.lax.fori_loop(0, _CORRECTIONS, corrected, t)
        return jnp.where((first > 0) & jnp.isfinite(t), t, 0)

    def early_state(self, objective, params, t):
        _, a, b = self._series(objective, params)
        return self._sum(params, a, b, t)

    def _sum(self, params, a, b, t):
        """Position and velocity from the first terms of the series."""
        state = jax.tree.map(lambda p, x, y: p + t**2 * (x + t**2 * y), params, a, b)
        velocity = jax.tree.map(lambda x, y: 2 * t * (x + 2 * t**2 * y), a, b)
        return state, velocity

    def _series(self, objective, params):
        gradient = objective.gradient(params)
        a = jax.tree.map(lambda g: -g / (2 * (1 + self.damping)), gradient)
        image = objective.hvp(params, a)
        return gradient, a, jax.tree.map(lambda h: -h / (4 * (3 + self.damping)), image)

    def duration(self, t):
        # The velocity falls like t^-damping.
        damping = float(self.damping)
        return t / (damping - 1) if damping > 1 else math.inf

    def decay(self, eigenvalue):
        return Decay(0.0, float(self.damping))

    def response(self, eigenvalue, time):
        """A Bessel function, `Gamma(n+1) (2/x)^n J_n(x)`, `n = (damping-1)/2, x = sqrt(ev) t`.

        Written as the confluent limit function 0F1, which covers eigenvalues of either sign.
        """
        argument = -np.asarray(eigenvalue, float) * np.square(time) / 4
        b = (float(self.damping) + 1) / 2
        if b <= _LARGE_ORDER:
            return scipy.special.hyp0f1(b, argument)
        return _confluent_limit(b, argument)


def _confluent_limit(b, z):
    """0F1(b; z) for large b, where SciPy's has lost its digits or is NaN.

    Poisson's integral, the mean of `cos(2 sqrt(-z) sin(phi))` under the weight `cos(phi)^(2b-2)`.
    The integrand has period pi and is smooth, so that the trapezoidal rule is exact up to
    rounding. Where -z > 40 b, the function is below 1e-16, and is returned as 0.
    """
    z = np.asarray(z, float)
    small = z < -40 * b
    x = 2 * np.sqrt(np.where(small, 0, np.abs(z)))
    count = int(200 + 2 * np.max(x, initial=0) + 8 * np.sqrt(b))
    phi = np.pi * (np.arange(count) / count - 0.5)
    weight = np.cos(phi) ** (2 * b - 2)
    phase = x[..., None] * np.sin(phi)
    negative = z[..., None] < 0
    wave = np.where(negative, np.cos(phase), np.cosh(np.where(negative, 0, phase)))
    return np.where(small, 0, wave @ weight / np.sum(weight))


class NesterovFlowSection(FlowSection):
    """`kind = "nesterov_flow"`, with its damping."""

    kind: Literal["nesterov_flow"] = "nesterov_flow"
    damping: Positive = 3.0

    def make(self) -> NesterovFlow:
        return NesterovFlow(self.damping)
