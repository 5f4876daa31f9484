"""Kernels of infinitely wide, fully connected networks."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._checks import check_positive_integer
from ..networks import Activation
from ..networks._activations import activation as find_activation
from ._expectations import Pair
from ._infinite_network import (
    Affine,
    InfiniteNetwork,
    State,
    Widest,
    activated,
    checked_samples,
    expectations_of,
    layers_of,
)


class InfiniteFullyConnected(InfiniteNetwork):
    """See `thalweg.kernels.fully_connected`."""

    layers: tuple[Affine, ...]
    activation: Activation = eqx.field(static=True)

    def checked(self, inputs, field):
        samples = checked_samples(inputs, field)
        if samples.ndim < 2:
            raise ValueError(
                f"{field}: shape {samples.shape}; expected one axis of samples and one of features"
                " at least (`[None]` makes a batch of one sample, `[:, None]` features of one"
                " number)."
            )
        return samples.reshape(samples.shape[0], -1)

    @property
    def activations(self):
        return len(self.layers) - 1

    @property
    def entry_size(self):
        return 1

    def widest(self, inputs):
        return self.rising(jnp.mean(inputs**2, axis=1))

    def rising(self, variance: Array) -> Widest:
        """Variances before every activation, from the mean squares of the inputs."""
        variances, expectations = [], []
        for layer in self.layers[:-1]:
            variance = layer.covariance(variance)
            found = expectations_of(self.activation, variance)
            variances.append(variance)
            expectations.append(found)
            variance = found.square(variance)
        return Widest(tuple(variances), tuple(expectations))

    def between(self, x, y, p, q, expectations, same):
        mean = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST) / x.shape[1]
        return self.propagated(State(mean, jnp.zeros_like(mean)), p, q, expectations, same)

    def propagated(self, state: State, p, q, expectations, same) -> State:
        """Through all layers, from covariances that are means over the inputs."""
        diagonal = jnp.eye(state.covariance.shape[0], dtype=bool) if same else None
        for layer, v, w, expected in zip(self.layers[:-1], p, q, expectations, strict=True):
            state = layer(state)
            pair = Pair(state.covariance, v[:, None], w[None], diagonal)
            state = activated(state, pair, expected)
        return self.layers[-1](state)


def fully_connected(
    depth: int,
    *,
    activation: str | Activation | Callable[[Array], Array] = "tanh",
    weight_std: float | Sequence[float] = 1.0,
    bias_std: float | Sequence[float] = 0.1,
    trained: str = "all",
) -> InfiniteFullyConnected:
    """An infinitely wide, fully connected network.

        network = tw.kernels.fully_connected(3, activation="relu", weight_std=2**0.5, bias_std=0.0)
        network(inputs).tangent

    The limit, as hidden widths grow, of `tw.networks.fully_connected(widths, ...)` with as many
    layers, the same activation, and `init=tw.networks.TangentKernel(weight_std, bias_std)`. The
    defaults of both agree; `bias_std=0.0` is the limit of `bias=False` as well.

    **Arguments:**

    - `depth`: the number of layers with weights, one more than there are hidden ones.
    - `activation`: as in `tw.networks.fully_connected`. Closed forms for "linear", "relu",
        "leaky_relu", "erf" and "gelu"; Hermite series for all others, of which `error` tells what
        they cut off.
    - `weight_std`, `bias_std`: of all layers, or one number for each.
    - `trained`: "all" layers, the "first" or the "last" only; the others stay as they are drawn.

    **Raises:** ValueError for a depth or standard deviation that is not positive, an unknown
    activation, or rows of the wrong length.

    ??? cite "References"

        Jacot, Gabriel and Hongler, "Neural tangent kernel: convergence and generalization in neural
        networks", Advances in Neural Information Processing Systems 31 (2018); Lee et al., "Deep
        neural networks as Gaussian processes", International Conference on Learning
        Representations (2018); Cho and Saul, "Kernel methods for deep learning", Advances in Neural
        Information Processing Systems 22 (2009).
    """
    check_positive_integer(depth, "depth")
    layers = layers_of(depth, weight_std, bias_std, trained)
    return InfiniteFullyConnected(layers, find_activation(activation))


def two_layer(features: int) -> InfiniteFullyConnected:
    """The theory's network: `1/sqrt(m) sum_r a_r relu(w_r . x)`, w_r ~ N(0, I), signs a_r fixed.

    The limit of `tw.networks.two_layer(features, m, key=...)`: the tangent kernel is
    `x . x' (pi - angle) / (2 pi)`. As there, a prediction is one number: shape `(samples,)`.

    ??? cite "Reference"

        Du, Zhai, Póczos and Singh, "Gradient descent provably optimizes over-parameterized neural
        networks", International Conference on Learning Representations (2019).
    """
    check_positive_integer(features, "features")
    layers = layers_of(2, (math.sqrt(features), 1.0), 0.0, "first")
    return InfiniteFullyConnected(layers, find_activation("relu"), scalar=True)
