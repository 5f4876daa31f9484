"""Convolutions by tiles, against the compiler's own convolution."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from thalweg.networks._tiles import convolution_by_tiles

CASES = [
    # Image, channels in and out, kernel, stride, padding.
    ((28, 28), 1, 6, (5, 5), 1, 2),
    ((28, 28), 1, 6, (5, 5), 2, 2),
    ((14, 14), 6, 16, (5, 5), 1, 0),
    ((14, 14), 6, 16, (5, 5), 2, 0),
    ((9, 7), 2, 3, (3, 2), 1, 1),
    ((8, 11), 3, 40, (3, 3), 3, 0),
    ((7, 7), 2, 3, (1, 1), 3, 0),
    ((4, 4), 2, 1, (6, 6), 2, 3),
    ((5, 5), 1, 2, (5, 5), 1, 0),
    ((17,), 2, 3, (4,), 1, 0),
    ((17,), 1, 2, (3,), 5, 2),
    ((5, 6, 4), 2, 3, (3, 3, 3), 1, 1),
]


def compilers(x, weight, stride, padding):
    sides = x.ndim - 1
    window = [stride] * sides, [(padding, padding)] * sides
    return jax.lax.conv_general_dilated(x[None], weight, *window, precision="highest")[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tiles_agree_with_the_compiler(case, dtype):
    image, inputs, outputs, kernel, stride, padding = case
    keys = jr.split(jr.key(0), 4)
    x, dx = (jr.normal(key, (3, inputs, *image), dtype) for key in keys[:2])
    weight, dw = (jr.normal(key, (outputs, inputs, *kernel), dtype) for key in keys[2:])

    def everything(convolution):
        def predict(x, weight):
            return jax.vmap(lambda a: convolution(a, weight, stride, padding))(x)

        def loss(x, weight):
            return jnp.sum(jnp.sin(predict(x, weight) / 8))

        gradient = jax.grad(loss, (0, 1))
        weights = jnp.stack([weight, dw, weight])
        return (
            jax.jvp(predict, (x, weight), (dx, dw)),
            gradient(x, weight),
            jax.jvp(gradient, (x, weight), (dx, dw))[1],
            jax.vmap(jax.grad(loss, 1), (None, 0))(x, weights),
        )

    found, expected = (
        jax.jit(lambda c=c: everything(c))() for c in (convolution_by_tiles, compilers)
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == dtype
        scale = max(float(jnp.abs(theirs).max()), 1)
        tolerance = 450 * np.finfo(dtype).eps * scale
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
