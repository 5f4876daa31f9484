"""What rounding may take away from numbers that a network computes, bounded in closed form.

A sum of n products is computed to within n rounding units of the sum of their absolute values
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 3). Through layers these sums
are bounded by products of Frobenius norms, which never cancel; so the bounds hold where large
gradients of samples do.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..losses import Loss
from ..objectives import Objective
from ._chain import chain_of, probes_of

# Operations beside those of matrix products, for each layer: scales, biases, slopes, means.
_BESIDE = 8


def rounding_unit(network: Any, objective: Objective) -> float:
    """Every number computed forward and backward through a network, and summed over samples, is
    exact up to this multiple of its sum of absolute values.

    A unit in the last place (two rounding errors) for every operation of those that follow one
    another, in the coarsest dtype of parameters and data. Valid where matrix products are as exact
    as their dtype.
    """
    leaves = [*jax.tree.leaves(network), objective.inputs, objective.targets]
    kinds = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    eps = max(float(jnp.finfo(kind).eps) for kind in kinds)
    count = objective.samples + _BESIDE
    probes = probes_of(network, objective.inputs[0])
    for link, probe in zip(chain_of(network)[0], probes, strict=True):
        outputs, inputs, *kernel = link.layer.weight.shape
        # A kernel is used at many places.
        count += (inputs + outputs) * math.prod(kernel) + probe.size // outputs + _BESIDE
    return eps * count


def slope_size(loss: Loss, outputs: Float[Array, ""], target: Array) -> Float[Array, ""]:
    """The sum of absolute values that a loss's gradient is computed from, for one sample.

    `outputs` is a bound on the norm of a prediction.
    """
    if math.isfinite(loss.steepness):
        # Probabilities carry the absolute error of their logits.
        return loss.steepness * (1 + outputs)
    return loss.smoothness * (outputs + jnp.linalg.norm(target))
