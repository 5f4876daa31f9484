"""Optimizers that are linear and treat all parameters alike, on any array of numbers."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._precision import jit
from .._trees import tree_strong
from ._base import Optimizer
from ._linear_reading import NotLinearError
from ._linear_update import LinearUpdate

# Runs with random gradients, in which the rules of all leaves are compared.
_DRAWS = 2


class Responses(NamedTuple):
    """What becomes of quadratic modes `1/2 curvature (x - end)^2` at saved steps.

    - `faded`: x, from 1 to the end 0; shape `(saves, *modes)`.
    - `pulled`: x - 1, from 1 with the end 1. It is zero without weight decay, which pulls to 0.
    - `learned`: x, from 0 to the end 1: `1 - faded + pulled`, with all its digits where a mode has
        hardly moved.
    - `drifted`: `pulled`, beyond that of a mode without curvature; with all its digits likewise.
    - `growth`: by how much a mode grows or shrinks per step, were the last one repeated for ever;
        shape `(*modes,)`. None where the next step has another law. Known to about 1e-8, for roots
        that nearly agree.
    """

    faded: Float[np.ndarray, "saves *modes"]
    pulled: Float[np.ndarray, "saves *modes"]
    learned: Float[np.ndarray, "saves *modes"]
    drifted: Float[np.ndarray, "saves *modes"]
    growth: Float[np.ndarray, "*modes"] | None

    def of(self, modes: slice) -> "Responses":
        """The responses of some modes in a row."""
        growth = None if self.growth is None else self.growth[modes]
        faded, pulled, learned, drifted = (part[:, modes] for part in self[:-1])
        return Responses(faded, pulled, learned, drifted, growth)


class Coordinatewise(Optimizer):
    """The rule by which an optimizer moves every single parameter, see `coordinatewise`.

    It acts on one array, of any shape: amplitudes of modes, for instance.
    """

    linear: LinearUpdate = eqx.field(static=True)
    optimizer: Optimizer
    name: ClassVar[str] = "coordinatewise rule"

    @property
    def time_per_step(self):
        return self.optimizer.time_per_step

    def limit(self):
        return self.optimizer.limit()

    def init(self, params):
        state = self.linear.init(self._row(params))
        return [state[i] for i in self._own]

    def update(self, k, params, state, gradient):
        everything = self.linear.still(params.dtype)
        for i, value in zip(self._own, state, strict=True):
            everything[i] = value

        def gradients(points):
            return self._row(gradient(points[0]))

        new, after = self.linear.update(k, self._row(params), everything, gradients)
        return new[0], [after[i] for i in self._own]

    def response(self, eigenvalue, step):
        modes, mode = np.unique(np.asarray(eigenvalue, float), return_inverse=True)
        steps, save = np.unique(np.asarray(step), return_inverse=True)
        faded = self.responses(modes, steps).faded
        return faded[save.reshape(np.shape(step)), mode.reshape(np.shape(eigenvalue))]

    def responses(self, curvatures: Float[np.ndarray, "*modes"], at: np.ndarray) -> Responses:
        """Modes of these curvatures at increasing steps.

        **Raises:** ValueError for an optimizer that looks for numbers that are not finite, where
        there are such.
        """
        flat = jnp.ravel(jnp.asarray(curvatures, float))
        path, now, then = map(np.asarray, _run(self, flat, jnp.asarray(at)))
        if self.linear.guarded and not np.all(np.isfinite(path)):
            raise ValueError(
                "optimizer: its steps become infinite or NaN, and it does something else with such"
                " numbers (`optax.zero_nans`, `optax.apply_if_finite`), which is not predicted."
            )
        shape = np.shape(curvatures)
        faded, ended, learned, drifted = np.moveaxis(path, 1, 0).reshape(4, len(at), *shape)
        growth = None
        if np.allclose(now, then, rtol=1e3 * np.finfo(now.dtype).eps, atol=0):
            growth = np.max(np.abs(np.linalg.eigvals(now)), axis=-1).reshape(shape)
        return Responses(faded, ended - 1, learned, drifted, growth)

    @property
    def kept(self) -> list[int]:
        """The places of what a state keeps of gradients and parameters, between constants."""
        return [j for j, i in enumerate(self._own) if self.linear.kinds[i].leaf == 0]

    @property
    def _own(self) -> list[int]:
        """Parts of the whole state that the rule of the first leaf reads: constants and its own."""
        return [i for i, kind in enumerate(self.linear.kinds) if kind.leaf in (None, 0)]

    def _row(self, first: Array) -> list[Array]:
        """Arrays for all leaves, of which the first one's alone matters."""
        return [first, *[jnp.zeros((), first.dtype)] * (len(self.linear.names) - 1)]


def coordinatewise(optimizer: Optimizer, params: PyTree[Array], steps: int) -> Coordinatewise:
    """The rule by which an optimizer moves every single parameter, if it has one.

    Its update has to be linear in gradients and parameters, entry by entry, at every step: that is
    read off the computation. It has to be the same for all leaves over `steps` steps: that is seen
    in runs with random gradients. Schedules, momentum of all kinds and weight decay are such.

    **Raises:** NotLinearError, saying what it is that is not linear, couples coordinates, or makes
    a difference between them.
    """
    linear = LinearUpdate(optimizer, params)
    if len(linear.names) > 1:
        apart = _apart(linear, steps)
        worst = int(np.argmax(apart))
        if apart[worst] > float(jnp.finfo(float).eps) ** 0.75:
            raise NotLinearError(
                "its steps are not the same multiple of the gradient for all parameters:"
                f" {linear.names[0]} and {linear.names[worst]} move differently under the same"
                " gradients, as with `optax.masked` and `optax.multi_transform`. A tangent kernel"
                " sums over all parameters with one weight."
            )
    return Coordinatewise(linear, optimizer)


@jit
def _run(rule, curvatures, at):
    """From 1 to 0, from 1 to 1, from 0 to 1, and what curvature changes in the second.

    Shape `(saves, 4, modes)`. With it the matrices of the last step and of the next one, on the
    position of a mode and what the rule keeps of it: `(modes, parts, parts)`.
    """
    # The last row is a mode without curvature, from which the fourth one starts as a difference.
    start = jnp.asarray([1.0, 1.0, 0.0, 0.0, 1.0])[:, None] * jnp.ones_like(curvatures)
    state = tree_strong(rule.init(start))

    def slopes(x):
        toward = jnp.stack([x[0], x[1] - 1, x[2] - 1, x[3] + (x[4] - 1), jnp.zeros_like(x[4])])
        return curvatures * toward

    def step(carry):
        k, x, state, _ = carry
        return k + 1, *rule.update(k, x, state, slopes), state

    def to_save(carry, save):
        carry = jax.lax.while_loop(lambda carry: carry[0] < save, step, carry)
        return carry, carry[1][:4]

    begin = jnp.asarray(0), start, state, state
    (k, _, state, before), path = jax.lax.scan(to_save, begin, at)
    basis = jnp.eye(1 + len(rule.kept))[:, :, None] * jnp.ones_like(curvatures)

    def matrix(moment):
        k, state = moment
        for place, part in zip(rule.kept, basis[1:], strict=True):
            state[place] = part
        x, after = rule.update(k, basis[0], state, lambda x: curvatures * x)
        return jnp.transpose(jnp.stack([x, *(after[j] for j in rule.kept)]), (2, 0, 1))

    moments = (jnp.maximum(k - 1, 0), before), (k, state)
    return path, *jax.lax.map(matrix, jax.tree.map(lambda *m: jnp.stack(m), *moments))


def _apart(linear: LinearUpdate, steps: int) -> np.ndarray:
    """How far the rules of all leaves lead apart from the first one's, relatively.

    From random parameters without gradients, and from zero with random ones: what decay does is
    seen beside what gradients do, however small either is.
    """
    draws = np.random.default_rng(0).normal(size=(steps + 1, _DRAWS))
    nothing = np.zeros((steps, _DRAWS))
    begin = np.stack([draws[0], nothing[0] if steps else 0 * draws[0]])
    return np.asarray(_led_apart(linear, begin, np.stack([nothing, draws[1:]], axis=1)))


@jit
def _led_apart(linear, begin, gradients):
    count = len(linear.names)
    start = [begin] * count

    def step(carry, gradient):
        k, values, state, size, apart = carry
        values, state = linear.update(k, values, state, lambda points: [gradient] * count)
        size = jnp.maximum(size, jnp.abs(values[0]))
        gaps = jnp.abs(jnp.stack(values) - values[0])
        shares = jnp.where(gaps > 0, gaps / jnp.where(size > 0, size, gaps), 0)
        # What has left the finite says nothing any more.
        return (k + 1, values, state, size, jnp.fmax(apart, jnp.max(shares, axis=(1, 2)))), None

    carry = jnp.asarray(0), start, tree_strong(linear.init(start)), jnp.abs(begin), jnp.zeros(count)
    return jax.lax.scan(step, carry, gradients)[0][-1]
