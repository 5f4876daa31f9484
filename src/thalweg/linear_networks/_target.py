"""What a deep linear network on whitened data is drawn to."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..losses import SquaredError
from ..objectives import Objective, check_objective

# How far the second moment of inputs may be from 1, per input and in units of the last place.
_DEVIATION = 1e3


def target_of(objective: Objective) -> Float[Array, "outputs inputs"]:
    """The target `1/N sum y x^T` of an objective with squared error and whitened inputs.

        (target,) = tw.linear_networks.target_of(objective)  # one output
        w = tw.linear_networks.exact_flow(depth, target, initial, times)

    The objective of a linear network is then `1/2 |W_n ... W_1 - target|^2` (Frobenius) plus a
    constant.

    **Raises:** ValueError for another loss, inputs that are not rows of numbers, and inputs that
    are not whitened, saying by how much: `dataset.whitened()` makes them so.
    """
    check_objective(objective, Objective, what="the target of a linear network")
    if not isinstance(objective.loss, SquaredError):
        raise ValueError("objective: the closed forms are for tw.losses.squared_error.")
    x, y = objective.inputs, objective.targets
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(
            f"objective: expected rows of inputs and targets, got shapes {x.shape} and {y.shape}."
        )
    moment = x.T @ x / objective.samples
    deviation = float(jnp.max(jnp.abs(moment - jnp.eye(x.shape[1], dtype=x.dtype))))
    if deviation > _DEVIATION * x.shape[1] * float(jnp.finfo(x.dtype).eps):
        raise ValueError(
            "objective: inputs are not whitened: their second moment 1/N sum x x^T differs from 1"
            f" by {deviation:.3g}. Use `dataset.whitened()`, or `EndToEndFlow`, which needs no"
            " whitening."
        )
    return y.T @ x / objective.samples
