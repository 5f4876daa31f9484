"""Expectations of products of activations: closed forms."""

import math

import equinox as eqx
import jax.numpy as jnp

from ._expectations import Expectations


class Homogeneous(Expectations):
    """`s(u) = above u` for u > 0 and `below u` else (Cho and Saul 2009, for ReLU)."""

    below: float = eqx.field(static=True)
    above: float = eqx.field(static=True)

    def __call__(self, pair):
        mean, jump = (self.above**2 + self.below**2) / 2, (self.above - self.below) ** 2
        if jump == 0:
            return mean * pair.c, jnp.full(pair.c.shape, mean, pair.c.dtype)
        cosine = pair.cosine
        angle = jnp.arccos(cosine)
        size = jnp.sqrt(pair.p) * jnp.sqrt(pair.q)
        bent = size * (jnp.sqrt((1 - cosine) * (1 + cosine)) - angle * cosine)
        share = jump / (2 * math.pi)
        return mean * pair.c + share * bent, mean - share * angle


class Erf(Expectations):
    """The arcsine kernel (Williams 1997)."""

    def __call__(self, pair):
        # (1 + 2p) (1 + 2q) - 4c^2: large inputs leave nothing of it if it is formed like this.
        rest = jnp.sqrt(1 + 2 * pair.p + 2 * pair.q + 4 * pair.gap)
        return 2 / math.pi * jnp.arctan2(2 * pair.c, rest), 4 / math.pi / rest


class Gelu(Expectations):
    """`s(u) = u Phi(u)`, by Stein's lemma: `E[u G] = p E[dG/du] + c E[dG/dv]`, until nothing is
    left but `E[Phi(u) Phi(v)]` and `E[phi(u) phi(v)]`.
    """

    def __call__(self, pair):
        c, p, q, gap = pair.c, pair.p, pair.q, pair.gap
        # (1 + p) (1 + q) - c^2
        rest = 1 + p + q + gap
        densities = 1 / (2 * math.pi) / jnp.sqrt(rest)
        chances = 0.25 + jnp.arctan2(c, jnp.sqrt(rest)) / (2 * math.pi)
        shrunk = c / (1 + p) + c / (1 + q)
        value = c * chances + densities * (gap + c * shrunk)
        slopes = chances + densities * (shrunk + c / rest)
        return value, slopes
