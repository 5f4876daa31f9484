"""The Jacobian of a layered network, in factors that are far smaller than itself.

What a dense layer's weights change is an outer product, of what comes back to the layer and of what
went into it; the kernel of two samples is then the product of two small inner products, and the
Jacobian, whose rows are as long as there are parameters, is never formed. Convolutions share their
weights between places, so that outer products add up; their Jacobians are small, and are formed.

Source: Novak, Sohl-Dickstein and Schoenholz, Fast finite width neural tangent kernel, International
Conference on Machine Learning (2022), where this is called structured derivatives.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature._chain import chain_of, probes_of, signals
from ..networks import Convolutional, FullyConnected, TwoLayer, apply
from ..networks._layers import Dense
from ..objectives import Objective


class Factor(NamedTuple):
    """Of one block of samples and one layer: the Jacobian's rows are `back` times `into`.

    `into` is absent where `back` is all of it.
    """

    back: Float[Array, "samples outputs width"]
    into: Float[Array, "samples features"] | None


def is_layered(objective: Objective, params: Any) -> bool:
    """Whether a landscape's network has such factors."""
    return objective.predict is apply and isinstance(
        params, FullyConnected | Convolutional | TwoLayer
    )


def layer_factors(network: Any, inputs: Float[Array, "samples ..."]) -> list[Factor]:
    """The factors of every layer, for a block of samples."""
    if isinstance(network, TwoLayer):
        return [jax.vmap(lambda x: _trained(network, x))(inputs)]

    def of_sample(x):
        probes = probes_of(network, x)

        def outputs(probes):
            values, into = signals(network, x, probes)
            return values, into

        values, pull, into = jax.vjp(outputs, probes, has_aux=True)
        back = jax.vmap(lambda c: pull(c)[0])(jnp.eye(values.size, dtype=values.dtype))
        factors = []
        for link, b, a in zip(chain_of(network)[0], back, into, strict=True):
            layer = link.layer
            if isinstance(layer, Dense):
                row = layer.weight_scale * a.reshape(-1)
                if layer.bias is not None:
                    row = jnp.append(row, layer.bias_scale)
                factors.append(Factor(b, row))
            else:
                factors.append(Factor(_shared(layer, a, b), None))
        return factors

    return jax.vmap(of_sample)(inputs)


def _trained(network: TwoLayer, x: Array) -> Factor:
    """The factor of the one layer that is trained, units of both signs in a row."""
    row = x.reshape(-1)
    active = [
        (weight @ row > 0).astype(row.dtype) for weight in (network.positive, network.negative)
    ]
    back = jnp.concatenate([active[0], -active[1]]) / math.sqrt(network.width)
    return Factor(back[None], row)


def _shared(layer, into, back):
    """The Jacobian of a convolution's own weights."""

    def of_output(b):
        grown = jax.vjp(lambda own: own(into), layer)[1](b)[0]
        leaves = jax.tree.leaves(eqx.filter(grown, eqx.is_inexact_array))
        return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])

    return jax.vmap(of_output)(back)


def factor_size(network: Any, inputs: Float[Array, "samples ..."]) -> int:
    """Numbers that the factors of one sample have."""
    shapes = jax.eval_shape(lambda: layer_factors(network, inputs[:1]))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
