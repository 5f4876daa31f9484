"""Balanced deep linear networks: how to start one, and how to see that it stays balanced."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import check_positive, check_positive_integers
from ..networks import FullyConnected, fully_connected


def balanced(
    widths: Sequence[int], *, norm: float | None = None, end_to_end: Any = None, key: PRNGKeyArray
) -> FullyConnected:
    """A deep linear network whose layers are balanced: `W_{j+1}^T W_{j+1} = W_j W_j^T`.

        network = tw.linear_networks.balanced([64, 32, 1], norm=0.1, key=key)

    The end-to-end matrix `A = U S V^T` is shared out evenly: `W_n = U S^(1/n) Q_{n-1}^T`,
    `W_j = Q_j S^(1/n) Q_{j-1}^T`, `W_1 = Q_1 S^(1/n) V^T`, with random orthonormal columns `Q_j`.

    **Arguments:**

    - `widths`: the numbers of inputs, of units in each hidden layer, and of outputs. No hidden
        layer is narrower than both ends.
    - `norm`: the Frobenius norm of the end-to-end matrix, whose direction is then Gaussian.
    - `end_to_end`: the end-to-end matrix itself, shape `(outputs, inputs)`, in place of `norm`.
    - `key`: the PRNG key for everything random.

    **Returns:** a `FullyConnected` network without biases and activations.

    **Raises:** ValueError for hidden layers too narrow, a matrix of another shape or that is not
    finite, and unless one of `norm` and `end_to_end` is given.

    ??? cite "Reference"

        Arora, Cohen, Golowich and Hu, "A convergence analysis of gradient descent for deep linear
        neural networks", International Conference on Learning Representations, 2019 (procedure 1).
    """
    check_positive_integers(widths, "widths")
    network = fully_connected(widths, activation="linear", bias=False, key=key)
    inputs, outputs = widths[0], widths[-1]
    rank = min(inputs, outputs)
    if min(widths) < rank:
        raise ValueError(
            f"widths: a hidden layer of {min(widths)} is narrower than both ends, {inputs} and"
            f" {outputs}; balanced layers are at least {rank} wide."
        )
    if (norm is None) == (end_to_end is None):
        raise ValueError("norm: give either norm or end_to_end.")
    matrix_key, *keys = jr.split(key, len(widths) - 1)
    dtype = network.layers[0].weight.dtype
    if norm is not None:
        check_positive(norm, "norm")
        matrix = jr.normal(matrix_key, (outputs, inputs), dtype)
        matrix = norm * matrix / jnp.linalg.norm(matrix)
    else:
        matrix = jnp.asarray(end_to_end, dtype)
        if matrix.shape != (outputs, inputs):
            raise ValueError(
                f"end_to_end: shape {matrix.shape} does not fit widths, {(outputs, inputs)}."
            )
        if not np.all(np.isfinite(np.asarray(matrix))):
            raise ValueError("end_to_end: contains NaN or infinity.")
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    frames = [
        jnp.linalg.qr(jr.normal(k, (width, rank), dtype))[0]
        for width, k in zip(widths[1:-1], keys, strict=True)
    ]
    share = s ** (1 / (len(widths) - 1))
    frames = [vt.T, *frames, u]
    weights = [(after * share) @ before.T for before, after in pairwise(frames)]
    return eqx.tree_at(lambda m: [layer.weight for layer in m.layers], network, weights)


def end_to_end(network: FullyConnected) -> Float[Array, "outputs inputs"]:
    """The matrix `W_n ... W_1` of a linear network.

    **Raises:** ValueError for a network that is not linear or has biases.
    """
    return reduce(lambda product, weight: weight @ product, weights_of(network))


def imbalance(objective: Any, params: PyTree) -> Float[Array, ""]:
    """The largest `|W_{j+1}^T W_{j+1} - W_j W_j^T|` (Frobenius) of a linear network: an observable.

        run = tw.observe(run, imbalance=tw.linear_networks.imbalance)

    Gradient flow conserves each of these differences; gradient descent changes it by at most
    `step_size^2` times a product of gradients in every step. Costs nothing.

    **Raises:** ValueError for a network that is not linear or has biases.

    ??? cite "Reference"

        Arora, Cohen and Hazan, "On the optimization of deep networks: implicit acceleration by
        overparameterization", International Conference on Machine Learning, 2018 (theorem 1).
    """
    weights = weights_of(params)
    gaps = [jnp.linalg.norm(b.T @ b - a @ a.T) for a, b in pairwise(weights)]
    return jnp.max(jnp.stack(gaps)) if gaps else jnp.zeros((), weights[0].dtype)


def weights_of(network: Any) -> list[Float[Array, "outputs inputs"]]:
    """The layers' matrices, scales included, the first layer's first.

    **Raises:** ValueError for a network that is not linear or has biases.
    """
    if not isinstance(network, FullyConnected):
        raise ValueError(
            f"network: expected a `tw.networks.FullyConnected`, got {type(network).__name__}."
        )
    if network.activation.slopes != (1.0, 1.0) and len(network.layers) > 1:
        raise ValueError(f"network: not linear, its activation is {network.activation.name}.")
    if any(layer.bias is not None for layer in network.layers):
        raise ValueError("network: has biases; deep linear networks are without (bias=False).")
    return [layer.weight_scale * layer.weight for layer in network.layers]
