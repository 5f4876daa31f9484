"""Expectations of products of activations: Hermite series, for any activation.

With `u = sqrt(p) z` and `a_n(p) = E[s(sqrt(p) z) h_n(z)]`, h_n the normalised Hermite polynomials,
Mehler's formula says

`E[s(u) s(v)] = sum_n a_n(p) a_n(q) r^n`,  r the correlation.

A matrix of such sums is a sum of products of positive semidefinite ones, whatever the number of
terms, and what is cut off is at most what the coefficients lack of `E[s(u)^2]`, which is known.

Source: Daniely, Frostig and Singer, Toward deeper understanding of neural networks: the power of
initialization and a dual view on expressivity, Advances in Neural Information Processing Systems
29 (2016), section 4.
"""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..networks import Activation
from ._expectations import Expectations, Pair

# Beyond, the square root of the normal density is below rounding, and with it every integrand.
_FARTHEST = 13.0
# The trapezoidal rule converges exponentially for analytic integrands; with these nodes as long as
# their poles keep 0.15 from the real axis, in units of the standard deviation.
_NODES = 1024
_FEWEST_TERMS, _MOST_TERMS = 16, 512
# What is cut off may be as much as summation rounds, in units of the resolution.
_ROUNDING = 16
# Variances for which integrands are made at the same time.
_AT_ONCE = 256


class Hermite(Expectations):
    """The series for one activation; `tail` is the share of `E[s^2]` and of `E[s'^2]` cut off."""

    activation: Activation = eqx.field(static=True)
    table: Float[Array, "nodes terms"]
    nodes: Float[Array, "nodes"]
    tail: float = eqx.field(static=True)

    def __init__(self, activation: Activation, variances: Sequence[float], dtype: jnp.dtype):
        """`variances`: the smallest and the largest that will occur.

        The larger, the more terms it takes; but a kink far out shows at the small ones.
        """
        self.activation = activation
        nodes = np.linspace(-_FARTHEST, _FARTHEST, _NODES)
        table = _table(nodes)
        self.nodes = jnp.asarray(nodes, dtype)
        weights = _weights(nodes)
        tail = np.zeros(_MOST_TERMS)
        functions = activation.function, _slope(activation)
        for function, variance in itertools.product(functions, variances):
            points = jnp.asarray(math.sqrt(variance) * nodes, dtype)
            values = np.asarray(function(points), float)
            total = weights @ values**2
            kept = np.cumsum((values @ table) ** 2)
            tail = np.maximum(tail, (total - kept) / max(total, np.finfo(float).tiny))
        # Odd or even terms may be zero.
        enough = np.flatnonzero(tail <= _ROUNDING * float(jnp.finfo(dtype).eps))
        terms = int(enough[0]) + 1 if enough.size else _MOST_TERMS
        terms = max(terms, _FEWEST_TERMS)
        self.table = jnp.asarray(table[:, :terms], dtype)
        self.tail = float(max(tail[terms - 1], 0.0))

    def __call__(self, pair):
        cosine = pair.cosine
        return (
            self._sum(self.activation.function, pair, cosine),
            self._sum(_slope(self.activation), pair, cosine),
        )

    def _sum(self, function, pair: Pair, cosine):
        first, second = (self._coefficients(function, v) for v in (pair.p, pair.q))

        def horner(i, total):
            n = self.table.shape[1] - 1 - i
            return total * cosine + first[n] * second[n]

        return jax.lax.fori_loop(0, self.table.shape[1], horner, jnp.zeros_like(cosine))

    def square(self, variance):
        def of_one(v):
            return jnp.sum(self._expanded(self.activation.function, v) ** 2)

        return _one_by_one(of_one, variance)

    def _coefficients(self, function, variance):
        """The terms come first."""
        found = _one_by_one(lambda v: self._expanded(function, v), variance)
        return jnp.moveaxis(found, -1, 0)

    def _expanded(self, function, variance):
        """The coefficients for one variance."""
        return function(jnp.sqrt(variance) * self.nodes) @ self.table


def _one_by_one(of_one, variance):
    """For every variance, of which there are many (all places of all images), a few at once."""
    found = jax.lax.map(of_one, variance.reshape(-1), batch_size=_AT_ONCE)
    return found.reshape(*variance.shape, *found.shape[1:])


def _slope(activation):
    def slope(x):
        return jax.jvp(activation.function, (x,), (jnp.ones_like(x),))[1]

    return slope


def _weights(nodes):
    return (nodes[1] - nodes[0]) * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)


def _table(nodes):
    """Normalised Hermite polynomials at the nodes, times weights.

    The recurrence runs on products with the root of the weight, which neither over- nor underflow.
    """
    half = np.sqrt(_weights(nodes))
    before, now = np.zeros_like(nodes), half
    columns = [now]
    for n in range(_MOST_TERMS - 1):
        before, now = now, (nodes * now - math.sqrt(n) * before) / math.sqrt(n + 1)
        columns.append(now)
    return np.stack(columns, axis=1) * half[:, None]
