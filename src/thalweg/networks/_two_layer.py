"""The network of the theory of wide networks: two layers, of which the first is trained."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import check_positive_integer
from .._memory import check_parameters
from ._layers import as_sample


class TwoLayer(eqx.Module):
    """`1/sqrt(m) sum_r a_r relu(w_r . x)`, on one sample of any shape, flattened.

    Units whose fixed sign a_r is 1 are kept apart from those where it is -1, so that the only
    leaves are what is trained.
    """

    positive: Float[Array, "units features"]
    negative: Float[Array, "others features"]

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        x = as_sample(x, self.positive.shape[1:])
        sums = [jnp.sum(_relu(weight @ x)) for weight in (self.positive, self.negative)]
        return (sums[0] - sums[1]) / math.sqrt(self.width)

    @property
    def width(self) -> int:
        """The number of hidden units, m."""
        return self.positive.shape[0] + self.negative.shape[0]


def two_layer(features: int, width: int, *, key: PRNGKeyArray) -> TwoLayer:
    """The theory's network with this many inputs and hidden units, of random signs.

    Weights start from N(0, 1). Predictions are numbers, not rows: targets have shape `(samples,)`.

    **Raises:** ValueError for sizes that are not positive integers, or more parameters than fit
    into the machine's memory.

    ??? cite "Reference"

        Du, Zhai, Póczos and Singh, "Gradient descent provably optimizes over-parameterized neural
        networks", International Conference on Learning Representations (2019).
    """
    check_positive_integer(features, "features")
    check_positive_integer(width, "width")
    check_parameters(int(features) * int(width), "width", jnp.result_type(float).itemsize)
    sign_key, weight_key = jr.split(key)
    positive = int(jnp.sum(jr.bernoulli(sign_key, shape=(width,))))
    weight = jr.normal(weight_key, (width, features))
    return TwoLayer(weight[:positive], weight[positive:])


def _relu(x: Array) -> Array:
    return jnp.where(x > 0, x, 0)
