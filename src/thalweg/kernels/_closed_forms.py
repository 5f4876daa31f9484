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
        product = (1 + 2 * pair.p) * (1 + 2 * pair.q)
        value = 2 / math.pi * jnp.arcsin(2 * pair.c / jnp.sqrt(product))
        return value, 4 / math.pi / jnp.sqrt(product - 4 * pair.c**2)


class Gelu(Expectations):
    """`s(u) = u Phi(u)`, by Stein's lemma: `E[u G] = p E[dG/du] + c E[dG/dv]`, until nothing is
    left but `E[Phi(u) Phi(v)]` and `E[phi(u) phi(v)]`.
    """

    def __call__(self, pair):
        c, p, q = pair.c, pair.p, pair.q
        product = (1 + p) * (1 + q)
        densities = 1 / (2 * math.pi) / jnp.sqrt(product - c**2)
        chances = 0.25 + jnp.arcsin(c / jnp.sqrt(product)) / (2 * math.pi)
        shrunk = c / (1 + p) + c / (1 + q)
        value = c * chances + densities * (p * q - c**2 + c * shrunk)
        slopes = chances + densities * (shrunk + c / (product - c**2))
        return value, slopes
