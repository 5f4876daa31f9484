"""What every infinitely wide network has in common: kernels, made block by block."""

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import check_positive, check_positive_integer
from .._precision import jit
from ..networks import Activation
from ..networks._activations import erf, gelu
from ._blocks import blocks, empty, filled
from ._closed_forms import Erf, Gelu, Homogeneous
from ._expectations import Expectations, Pair
from ._hermite import Hermite

# Arrays of one block's size that are alive at once.
_ALIVE = 8
_MEMORY = 2**28


class Kernels(NamedTuple):
    """The two kernels of an infinitely wide network, each of shape `(samples, others)`.

    One output's; different outputs are independent, and their kernels alike.

    - `tangent`: the inner product of the gradients of a prediction on two samples.
    - `nngp`: the covariance of predictions at initialisation.
    - `error`: where an activation has no closed form, the largest share of a variance that its
        series cuts off; 0 for closed forms, which are exact up to rounding.
    """

    tangent: Float[Array, "samples others"]
    nngp: Float[Array, "samples others"]
    error: float


class Affine(eqx.Module):
    """A layer `weight_std / sqrt(fan_in) W x + bias_std b`, all of W and b standard normal.

    `trained`: whether W and b are, or stay what they were drawn.
    """

    weight_std: float = eqx.field(static=True)
    bias_std: float = eqx.field(static=True)
    trained: bool = eqx.field(static=True)

    def covariance(self, c: Array) -> Array:
        """The covariance of its outputs, from the mean over its inputs."""
        return self.weight_std**2 * c + self.bias_std**2

    def __call__(self, state: "State") -> "State":
        """What becomes of covariances and tangent kernel."""
        covariance = self.covariance(state.covariance)
        tangent = self.weight_std**2 * state.tangent
        return State(covariance, tangent + covariance if self.trained else tangent)


class State(NamedTuple):
    """Covariances and tangent kernel between two sets of samples, on the way up the layers."""

    covariance: Array
    tangent: Array


class Widest(NamedTuple):
    """On the way up the layers: each sample's variances before every activation, and the
    expectations made for them.
    """

    variances: tuple[Array, ...]
    expectations: tuple[Expectations, ...]

    def rows(self, part: slice) -> tuple[Array, ...]:
        """The variances of some samples."""
        return tuple(v[part] for v in self.variances)


class InfiniteNetwork(eqx.Module):
    """A network whose hidden layers are infinitely wide, in the tangent-kernel parametrisation.

    Call it on inputs for its kernels. `scalar`: its prediction on a sample is a number, not a row
    of outputs.
    """

    scalar: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, inputs: Any, others: Any = None, *, memory: int = _MEMORY) -> Kernels:
        """The kernels between samples, in blocks.

        **Arguments:**

        - `inputs`: shape `(samples, ...)`.
        - `others`: more of them, to pair the first with; `None` pairs `inputs` with themselves,
            which takes half the work and makes exactly symmetric matrices.
        - `memory`: bytes for what is needed beside the result.

        **Raises:** ValueError for inputs that are empty, not finite, or of the wrong size, and for
        less memory than one entry takes.
        """
        check_positive_integer(memory, "memory")
        inputs = self.checked(inputs, "inputs")
        both = [inputs] if others is None else [inputs, self.checked(others, "others")]
        if both[-1].shape[1:] != inputs.shape[1:]:
            raise ValueError(
                f"others: samples of shape {both[-1].shape[1:]}, but those of inputs have"
                f" {inputs.shape[1:]}."
            )
        widest = self.widest(jnp.concatenate(both))
        needed = _ALIVE * inputs.dtype.itemsize * self.entry_size
        if memory < needed:
            raise ValueError(
                f"memory: {memory:,} bytes, but the work on one entry takes {needed:,}."
            )
        size = math.isqrt(memory // needed)
        rows, columns = len(both[0]), len(both[-1])
        shift = 0 if others is None else rows
        results = [empty((rows, columns), inputs.dtype) for _ in range(2)]
        for i in blocks(rows, size):
            for j in blocks(columns, size):
                if others is None and j.start < i.start:
                    continue
                same = others is None and i == j
                shifted = slice(j.start + shift, j.stop + shift)
                made = _block(
                    self,
                    both[0][i],
                    both[-1][j],
                    (widest.rows(i), widest.rows(shifted), widest.expectations),
                    same,
                )
                results[0][i, j], results[1][i, j] = made.tangent, made.covariance
                if others is None:
                    for result in results:
                        if same:
                            result[i, j] = (result[i, j] + result[i, j].T) / 2
                        else:
                            result[j, i] = result[i, j].T
        error = max((e.tail for e in widest.expectations if isinstance(e, Hermite)), default=0.0)
        return Kernels(filled(results[0]), filled(results[1]), error)

    def prior_variances(self, inputs: Any) -> Float[Array, "samples"]:
        """The variance of predictions at initialisation: the diagonal of `nngp`."""
        inputs = self.checked(inputs, "inputs")
        return _own_variances(self, inputs, self.widest(inputs))

    @abc.abstractmethod
    def checked(self, inputs: Any, field: str) -> Array:
        """Samples in the shape that the first layer takes, or a ValueError."""

    @property
    @abc.abstractmethod
    def activations(self) -> int:
        """How often an activation is applied on the way up."""

    @property
    @abc.abstractmethod
    def entry_size(self) -> int:
        """Numbers that one entry of the kernel needs on the way."""

    @abc.abstractmethod
    def widest(self, inputs: Array) -> Widest:
        """Variances of all samples before every activation."""

    @abc.abstractmethod
    def between(
        self, x: Array, y: Array, p: list[Array], q: list[Array], expectations: Any, same: bool
    ) -> State:
        """Covariances and tangent kernel of two sets of samples, given their variances."""


@jit
def _block(network, x, y, known, same):
    p, q, expectations = known
    return network.between(x, y, list(p), list(q), expectations, same)


@jit
def _own_variances(network, inputs, widest):
    def one(sample):
        x, *v = (a[None] for a in sample)
        return network.between(x, x, v, v, widest.expectations, True).covariance[0, 0]

    return jax.lax.map(one, (inputs, *widest.variances))


def expectations_of(activation: Activation, variances: Array) -> Expectations:
    """Closed forms where there are any, else Hermite series, good for these variances."""
    if activation.slopes is not None:
        return Homogeneous(*activation.slopes)
    if activation == erf:
        return Erf()
    if activation == gelu:
        return Gelu()
    moving = variances[variances > 0]
    ends = (float(moving.min()), float(moving.max())) if moving.size else (0.0,)
    return Hermite(activation, ends, variances.dtype)


def activated(state: State, pair: Pair, expectations: Expectations) -> State:
    """What an activation makes of covariances and tangent kernel."""
    values, slopes = expectations(pair)
    return State(values, slopes * state.tangent)


def layers_of(count: int, weight_std: Any, bias_std: Any, trained: str) -> tuple[Affine, ...]:
    """Layers from one number for all of them or a row with one each."""
    names = ("all", "first", "last")
    if trained not in names:
        raise ValueError(f"trained: expected one of {', '.join(names)}, got {trained!r}.")
    weights, biases = (
        _row(value, count, field, zero)
        for value, field, zero in ((weight_std, "weight_std", False), (bias_std, "bias_std", True))
    )
    chosen = {"all": range(count), "first": [0], "last": [count - 1]}[trained]
    return tuple(
        Affine(w, b, k in chosen) for k, (w, b) in enumerate(zip(weights, biases, strict=True))
    )


def _row(value, count, field, zero):
    values = [value] * count if np.ndim(value) == 0 else list(value)
    if len(values) != count:
        raise ValueError(f"{field}: {len(values)} numbers for {count} layers.")
    for v in values:
        check_positive(v, field, zero=zero)
    return [float(v) for v in values]


def checked_samples(inputs: Any, field: str) -> Array:
    """A finite array of samples, in floating point.

    **Raises:** ValueError for an array without samples, or with NaN or infinity in it.
    """
    samples = jnp.asarray(inputs)
    if not jnp.issubdtype(samples.dtype, jnp.floating):
        samples = samples.astype(jnp.result_type(float))
    if samples.ndim < 1 or samples.size == 0:
        raise ValueError(f"{field}: shape {samples.shape} holds no samples.")
    if not np.isfinite(np.asarray(samples)).all():
        raise ValueError(f"{field}: contains NaN or infinity.")
    return samples
