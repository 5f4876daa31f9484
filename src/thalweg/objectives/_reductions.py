"""How a sum over samples is made: all at once, in micro-batches, or spread over devices.

These are the only places where samples are split and brought together again.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from .._checks import check_instance, check_positive_integer


class AbstractReduction(eqx.Module):
    """How work on all samples is divided and brought together again."""

    @abc.abstractmethod
    def at_once(self, samples: int) -> int:
        """How many of so many samples are worked on at once."""

    @abc.abstractmethod
    def sum(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """The sum over samples of what `batch(*some)` sums up for some of the samples.

        Every array has a leading axis of samples.
        """

    @abc.abstractmethod
    def per_sample(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """`batch(*some)` for all samples, its results with their leading axes in a row."""

    def place(self, array: Array, field: str) -> Array:
        """An array with a leading axis of samples, on the devices that will work on it."""
        return array

    def gathered(self, array: Array) -> Array:
        """The opposite: an array with a leading axis of samples, whole on every device."""
        return array


class AllAtOnce(AbstractReduction):
    """All samples at once."""

    def at_once(self, samples: int) -> int:
        """All."""
        return samples

    def sum(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """`batch(*arrays)`."""
        return batch(*arrays)

    def per_sample(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """`batch(*arrays)`."""
        return batch(*arrays)


class MicroBatches(AbstractReduction):
    """So many samples at once, one micro-batch after the other.

    This bounds the memory of every product without changing its result, beyond the order of
    summation. On a CPU a few samples at once can be faster, since what lies between the layers then
    stays in the caches: `thalweg.networks.convolutional` with 50 takes a half to two thirds of the
    time.

    **Raises:** ValueError for a size that is not a positive integer.
    """

    size: int = eqx.field(static=True)

    def __init__(self, size: int):
        check_positive_integer(size, "size")
        self.size = int(size)

    def at_once(self, samples: int) -> int:
        """A micro-batch."""
        return min(self.size, samples)

    def sum(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """The sum of `batch` over micro-batches."""
        if self.size >= arrays[0].shape[0]:
            return batch(*arrays)
        split, rest = self._split(arrays)
        shapes = jax.eval_shape(batch, *(s[0] for s in split))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(total, parts):
            return jax.tree.map(jnp.add, total, batch(*parts)), None

        total, _ = jax.lax.scan(add, zero, split)
        if rest[0].shape[0]:
            total = jax.tree.map(jnp.add, total, batch(*rest))
        return total

    def per_sample(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """`batch` of every micro-batch, in a row."""
        if self.size >= arrays[0].shape[0]:
            return batch(*arrays)
        split, rest = self._split(arrays)
        parts = jax.lax.map(lambda some: batch(*some), split)
        result = jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:])), parts)
        if rest[0].shape[0]:
            result = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), result, batch(*rest))
        return result

    def _split(self, arrays: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Whole micro-batches along a new leading axis, and the samples that are left."""
        whole = arrays[0].shape[0] // self.size
        head = whole * self.size
        split = tuple(a[:head].reshape((whole, self.size, *a.shape[1:])) for a in arrays)
        return split, tuple(a[head:] for a in arrays)


class Sharded(AbstractReduction):
    """Samples spread over the devices of a mesh, each of which holds and works on its part.

        objective = tw.Objective(predict, loss, inputs, targets, reduction=tw.objectives.Sharded())

    The compiler divides the work where the data are, and adds up over devices. Parameters and
    results are whole on every device. The same program runs in every process where
    `jax.distributed` joins several; each then passes all samples, or arrays that are spread over
    the mesh already (`jax.make_array_from_process_local_data`).

    **Arguments:**

    - `mesh`: a `jax.sharding.Mesh` with `Auto` axes, all of which divide the samples. By default
        all devices of all processes.

    **Raises:** TypeError for something else than a mesh; ValueError for a mesh with other axes,
    and, when an objective is made, for samples that cannot be divided equally.
    """

    mesh: Mesh = eqx.field(static=True)

    def __init__(self, mesh: Mesh | None = None):
        if mesh is None:
            mesh = Mesh(np.asarray(jax.devices()), ("samples",))
        check_instance(mesh, Mesh, "mesh", "a jax.sharding.Mesh")
        if others := {kind.name for kind in mesh.axis_types} - {"Auto"}:
            raise ValueError(
                f"mesh: it has axes of type {', '.join(sorted(others))}; make it with"
                " `jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * dims)`."
            )
        self.mesh = mesh

    @property
    def devices(self) -> int:
        """Among how many devices samples are divided."""
        return self.mesh.size

    def at_once(self, samples: int) -> int:
        """All of them."""
        return samples

    def sum(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """The sum over all devices."""
        return self._whole(batch(*map(self._divided, arrays)))

    def per_sample(self, batch: Callable[..., PyTree], *arrays: Array) -> PyTree:
        """The results stay where the samples are."""
        return jax.tree.map(self._divided, batch(*map(self._divided, arrays)))

    def place(self, array: Array, field: str) -> Array:
        """An array with its samples spread over the devices."""
        samples, devices = array.shape[0], self.devices
        if samples % devices:
            raise ValueError(
                f"{field}: {samples} samples cannot be divided among {devices} devices. Take"
                f" {samples - samples % devices} of them, or another mesh."
            )
        return jax.device_put(array, self._sharding(self.mesh.axis_names))

    def gathered(self, array: Array) -> Array:
        """An array, whole on every device of every process."""
        return jax.jit(lambda a: a, out_shardings=self._sharding())(array)

    def _divided(self, array: Array) -> Array:
        return jax.lax.with_sharding_constraint(array, self._sharding(self.mesh.axis_names))

    def _whole(self, tree: PyTree) -> PyTree:
        return jax.lax.with_sharding_constraint(tree, self._sharding())

    def _sharding(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))
