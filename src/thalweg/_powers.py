"""Exact scaling by powers of two, so that squares neither under- nor overflow.

Numbers below the smallest normal one count as zero here: compiled programs flush them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


def exponent(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """The e with `2^e <= |x| < 2^(e + 1)`; below every other one for 0, above for infinity."""
    info = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), _integers(info))
    bias = 1 - int(info.minexp)
    field = (bits >> info.nmant) & (2**info.nexp - 1)
    return field.astype(jnp.int32) - bias


def times_power(x: Float[Array, "..."], power: Int[Array, "..."] | int) -> Float[Array, "..."]:
    """`x 2^power`, also where the factor itself is no number of this dtype.

    Exact unless the result is out of range. Powers are clipped to twice the least exponent of the
    dtype, which goes from one end of its range to the other.
    """
    power = jnp.asarray(power, jnp.int32)
    half = power // 2
    return x * _power(half, x.dtype) * _power(power - half, x.dtype)


def scale_of(tree: PyTree[Array], dtype: jnp.dtype) -> Float[Array, ""]:
    """A power of two near the largest absolute number in all leaves, which may divide them all.

    Of numbers divided by it, the squares sum up without an overflow, and those that underflow do
    not count.
    """
    sizes = [jnp.max(jnp.abs(leaf), initial=0).astype(dtype) for leaf in jax.tree.leaves(tree)]
    largest = exponent(jnp.max(jnp.stack(sizes)))
    return _power(largest, dtype)


def _power(power: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """`2^power`, clipped to where both it and its inverse are normal numbers."""
    info = jnp.finfo(dtype)
    least = int(info.minexp)
    field = jnp.clip(power, least, -least) + (1 - least)
    kind = _integers(info)
    return jax.lax.bitcast_convert_type(field.astype(kind) << info.nmant, dtype)


def _integers(info) -> jnp.dtype:
    return jnp.dtype(f"uint{info.bits}")
