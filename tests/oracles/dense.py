"""Dense Hessians in float64, and their whole spectra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree


def squared_error(predictions, targets):
    return jnp.sum((predictions - targets) ** 2, axis=1) / 2


def cross_entropy(logits, labels):
    return jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(len(labels)), labels]


@functools.partial(jax.jit, static_argnums=(0, 1))
def hessian(predict, loss, inputs, targets, params):
    """The Hessian of the mean loss at `params`, rows and columns in the order of the leaves."""
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    inputs = jnp.asarray(inputs, jnp.float64)
    flat, unravel = ravel_pytree(wide)
    return jax.hessian(lambda p: jnp.mean(loss(predict(unravel(p), inputs), targets)))(flat)


def eigenvalues(matrix):
    """In increasing order."""
    matrix = np.asarray(matrix, np.float64)
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)


def matrix_with(spectrum, seed):
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))
    matrix = (basis * spectrum) @ basis.T
    return (matrix + matrix.T) / 2
