"""What the gradient flow of balanced layers makes of their product."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._checks import check_positive_integer
from ..flows import Flow


class EndToEndFlow(Flow):
    """The gradient flow of a balanced deep linear network, seen from its end-to-end matrix.

        objective = tw.Objective(lambda w, x: x @ w.T, tw.losses.squared_error, inputs, targets)
        flow = tw.integrate(tw.linear_networks.EndToEndFlow(3), objective, w, t1=10.0)

    Parameters are the one matrix `w = W_n ... W_1`, shape `(outputs, inputs)`, which obeys

    `w' = -sum_j (w w^T)^((n-j)/n) grad f(w) (w^T w)^((j-1)/n)`

    whatever the loss and however wide the hidden layers, as long as the layers are balanced. In
    singular vectors of `w` the sum is a product of numbers, taken by number.

    **Raises:** ValueError for a depth that is not a positive integer; TypeError for parameters
    that are not a matrix.

    ??? cite "Reference"

        Arora, Cohen and Hazan, "On the optimization of deep networks: implicit acceleration by
        overparameterization", International Conference on Machine Learning, 2018.
    """

    depth: int = eqx.field(static=True)
    name: ClassVar[str] = "end-to-end flow"
    real_spectrum: ClassVar[bool] = False

    def __check_init__(self):
        check_positive_integer(self.depth, "depth")

    def initial_state(self, params):
        if not eqx.is_array(params) or params.ndim != 2:
            raise TypeError(
                "params: expected the end-to-end matrix, such as"
                " `linear_networks.end_to_end(network)`."
            )
        return params

    def params(self, state):
        return state

    def vector_field(self, t, state, objective):
        gradient = objective.gradient(state)
        outputs, inputs = state.shape
        u, s, vt = jnp.linalg.svd(state, full_matrices=True)
        left = jnp.zeros(outputs, s.dtype).at[: s.size].set(s)
        right = jnp.zeros(inputs, s.dtype).at[: s.size].set(s)
        n = self.depth
        # 0^0 is 1: the first and the last layer see the whole gradient on their side.
        weights = sum(
            jnp.outer(left ** (2 * (n - j) / n), right ** (2 * (j - 1) / n))
            for j in range(1, n + 1)
        )
        return -(u @ (weights * (u.T @ gradient @ vt.T)) @ vt)

    def response(self, eigenvalue: Any, time: Any):
        """For one weight: `(1 + (2n - 2) eigenvalue t)^(-n / (2n - 2))`, for n = 1 `exp`.

        For a negative eigenvalue it reaches infinity in finite time, and is infinite from then on.
        """
        x = np.asarray(eigenvalue, float) * np.asarray(time, float)
        if self.depth == 1:
            return np.exp(-x)
        power = 2 * self.depth - 2
        base = 1 + power * x
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(base > 0, np.abs(base) ** (-self.depth / power), np.inf)
