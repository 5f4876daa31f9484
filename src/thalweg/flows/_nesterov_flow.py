"""Nesterov flow: a ball whose friction fades."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from .._checks import check_positive
from ._base import SecondOrderFlow


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

    def response(self, eigenvalue, time):
        """A Bessel function, `Gamma(n+1) (2/x)^n J_n(x)`, `n = (damping-1)/2, x = sqrt(ev) t`.

        Written as the confluent limit function 0F1, which covers eigenvalues of either sign.
        """
        argument = -np.asarray(eigenvalue, float) * np.square(time) / 4
        return scipy.special.hyp0f1((float(self.damping) + 1) / 2, argument)
