"""Optimizers in the form in which the published code ran them."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...optimizers import ClassicalOptimizer, HigherMomentum, Nesterov


class PyTorchNesterov(ClassicalOptimizer):
    """Nesterov's method as PyTorch's SGD makes it, momentum (k - 1) / (k + d - 1) set by hand.

    What is followed is the point ahead, at which gradients are taken, and one momentum stands for
    two: that of the last step and that of the next. Where it changes from step to step this is not
    quite Nesterov's method.
    """

    step_size: float | Float[Array, ""]
    damping: float | Float[Array, ""]
    name: ClassVar[str] = "Nesterov, PyTorch's form"

    def _nesterov(self) -> Nesterov:
        return Nesterov(self.step_size, self.damping)

    @property
    def time_per_step(self):
        return self._nesterov().time_per_step

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, k, params, state, gradient):
        momentum = self._nesterov().momentum_at(k)
        g = gradient(params)
        state = jax.tree.map(lambda b, g: jnp.asarray(momentum, b.dtype) * b + g, state, g)
        params = jax.tree.map(
            lambda x, b, g: x - self.step_size * (g + jnp.asarray(momentum, b.dtype) * b),
            params,
            state,
            g,
        )
        return params, state

    def limit(self):
        return self._nesterov().limit()

    def recurrence(self, eigenvalue, k):
        decrease = float(self.step_size) * eigenvalue
        now, before = (float(self._nesterov().momentum_at(max(j, 0))) for j in (k, k - 1))
        if before == 0:
            # Nothing but the gradient is in the buffer, or nothing at all.
            return 1 - (1 + now) * decrease, -(now**2) * decrease
        share = now**2 / before
        return 1 + share - (1 + now) * decrease, -share * (1 - decrease)

    def stability_limit(self, k):
        return self._nesterov().stability_limit(k)


class CascadedMomenta(ClassicalOptimizer):
    """Two momenta as two buffers of one momentum each, with the roots of `x^2 = first x + second`.

    What the first buffer gives is put into the second, but the second is not begun with the first
    gradient. So the first momentum is the larger root once, and the second sets in a step later;
    from then on this is `HigherMomentum`.
    """

    step_size: float | Float[Array, ""]
    first: float | Float[Array, ""]
    second: float | Float[Array, ""]
    name: ClassVar[str] = "higher momentum, cascaded"

    def __check_init__(self):
        self._later()

    def _at(self, k, where=np.where) -> HigherMomentum:
        """What it is in step k, counted from 0; in the first one the momenta do nothing."""
        larger = (self.first + (self.first**2 + 4 * self.second) ** 0.5) / 2
        first, second = where(k == 1, larger, self.first), where(k <= 2, 0.0, self.second)
        return HigherMomentum(self.step_size, first, second)

    def _later(self) -> HigherMomentum:
        return HigherMomentum(self.step_size, self.first, self.second)

    @property
    def time_per_step(self):
        return self._later().time_per_step

    def init(self, params):
        return self._later().init(params)

    def update(self, k, params, state, gradient):
        return self._at(k, jnp.where).update(k, params, state, gradient)

    def limit(self):
        return self._later().limit()

    def recurrence(self, eigenvalue, k):
        return self._at(k).recurrence(eigenvalue, k)

    def stability_limit(self, k):
        return self._later().stability_limit(k)
