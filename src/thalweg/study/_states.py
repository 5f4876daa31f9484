"""The state of a computation as plain bytes, and back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def to_bytes(state: PyTree) -> tuple[np.ndarray, str]:
    """All leaves' bytes in a row, and the description of their types and shapes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    parts = [np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8) for leaf in leaves]
    data = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    signature = ";".join(f"{leaf.dtype.str}{list(leaf.shape)}" for leaf in leaves)
    return data, signature


def from_bytes(data: np.ndarray, template: PyTree) -> PyTree:
    """The state, with the structure of `template`."""
    leaves, structure = jax.tree.flatten(template)
    restored, offset = [], 0
    for leaf in leaves:
        like = np.asarray(leaf)
        raw = data[offset : offset + like.nbytes]
        offset += like.nbytes
        value = np.frombuffer(raw.tobytes(), like.dtype).reshape(like.shape)
        restored.append(jnp.asarray(value) if eqx.is_array(leaf) else value)
    return jax.tree.unflatten(structure, restored)
