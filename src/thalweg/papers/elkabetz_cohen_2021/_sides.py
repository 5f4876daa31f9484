"""On which sides of their kinks two runs are, and where they part for good.

A ReLU sees every sample from one of two sides. Where the gradients on both sides of a kink lead
away from it, two runs that pass on different sides do not come together again, however near they
were: what they do then depends on the step size without a limit of first order. Such a pair of a
sample and a unit is found by how deep both runs get into their different sides.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..._precision import jit
from ...networks import Convolutional
from ...networks._layers import as_sample, max_pool
from ...study.plan import Plan
from ...study.store import Store

# Of so many pairs that got deepest into different sides, the first to part is named. Runs that
# cross a kink one after the other are apart as well, but not for so many saved times, and those
# that go along one do not get so many times deeper.
_DEEPEST, _LONG, _DEEPER = 10, 5, 3.0


@dataclass(frozen=True)
class Parting:
    """The pair of a sample and a hidden unit at which two runs parted.

    Layers count from 1, units within a layer from 0. `look` is the first saved time at which the
    runs were apart, `deepest` that at which both were farthest from zero, `depths` the unit's input
    then, in either run.
    """

    sample: int
    layer: int
    unit: int
    look: int
    deepest: int
    depths: tuple[float, float]


def carry_out_sides(plan: Plan, store: Store) -> None:
    """Beside every run: flips since the saved time before, and pairs on other sides than eta-1.

    The last stage: where the group "sides" is complete, everything is.
    """
    store.require("sides")
    kinks = plan.objective.kinks(plan.params).exist
    first, *others = (run.name for run in plan.runs)
    for name in (first, *others) if kinks else ():
        path = f"sides/{name}"
        if store.complete(path):
            continue
        rows = min(int(store.attribute(f"optimizers/{n}", "rows")) for n in (first, name))
        found = _compared(plan, *(store.read(f"optimizers/{n}", "params") for n in (first, name)))
        columns = {"flips": found[0], "apart": found[1]}
        time = store.read(f"optimizers/{name}", "time")[:rows]
        attributes: dict[str, Any] = {"parting": json.dumps(found[2] and asdict(found[2]))}
        store.allocate(path, {"time": time}, dict.fromkeys(columns, ()), "float64", attributes)
        store.write_columns(path, columns)
        store.annotate(path, {"complete": True})
    store.annotate("sides", {"complete": True})


def _compared(
    plan: Plan, ours: np.ndarray, theirs: np.ndarray
) -> tuple[list[int], list[int], Parting | None]:
    """Flips of their run, pairs apart at every row, and the parting of the two, if any."""
    _, unravel = ravel_pytree(plan.params)
    inputs, sizes = plan.objective.inputs, _sizes(plan)

    @jit
    def entering(row):
        return jax.vmap(lambda x: _units(unravel(row), x))(inputs)

    separations = _Separations((len(inputs), sum(sizes)))
    flips, apart, before = [], [], None
    for look, rows in enumerate(zip(ours, theirs, strict=False)):
        a, b = (np.asarray(entering(jnp.asarray(row))) for row in rows)
        side = b > 0
        flips.append(0 if before is None else int(np.sum(side != before)))
        apart.append(separations.add(look, a, b))
        before = side
    found = separations.first_of_the_deepest()
    if found is None:
        return flips, apart, None
    sample, place = found
    layer = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    unit = place - sum(sizes[:layer])
    return flips, apart, separations.parting(sample, place, layer + 1, unit)


class _Separations:
    """How deep every pair of a sample and a unit got into different sides."""

    def __init__(self, shape: tuple[int, int]):
        self._since = np.full(shape, -1)
        self._begun, self._at = np.zeros(shape, int), np.zeros(shape, int)
        self._depth, self._inputs = np.zeros(shape), np.zeros((2, *shape))
        # How deep when apart for the first time, now and in the stretch that got deepest.
        self._entry, self._entered = np.zeros(shape), np.zeros(shape)

    def add(self, look: int, ours: np.ndarray, theirs: np.ndarray) -> int:
        """The next saved time; returns how many pairs are apart."""
        differ = (ours > 0) != (theirs > 0)
        begins = differ & (self._since < 0)
        self._since = np.where(differ, np.where(self._since < 0, look, self._since), -1)
        depth = np.where(differ, np.minimum(np.abs(ours), np.abs(theirs)), 0)
        self._entry[begins] = depth[begins]
        deeper = depth > self._depth
        self._entered[deeper] = self._entry[deeper]
        self._depth[deeper], self._at[deeper] = depth[deeper], look
        self._begun[deeper] = self._since[deeper]
        self._inputs[:, deeper] = ours[deeper], theirs[deeper]
        return int(differ.sum())

    def first_of_the_deepest(self) -> tuple[int, int] | None:
        """Of the pairs that got deepest, after a while, the one that was apart first."""
        led = (self._at - self._begun >= _LONG) & (self._depth >= _DEEPER * self._entered)
        depth = np.where(led, self._depth, 0)
        deepest = [i for i in np.argsort(depth, axis=None)[::-1][:_DEEPEST] if depth.flat[i] > 0]
        if not deepest:
            return None
        first = min(deepest, key=lambda i: self._begun.flat[i])
        sample, place = np.unravel_index(first, self._depth.shape)
        return int(sample), int(place)

    def parting(self, sample: int, place: int, layer: int, unit: int) -> Parting:
        """What is known of one pair."""
        at = sample, place
        ours, theirs = self._inputs[:, sample, place]
        begun, deepest = int(self._begun[at]), int(self._at[at])
        return Parting(sample, layer, unit, begun, deepest, (float(ours), float(theirs)))


def _units(network: Any, x: Float[Array, "..."]) -> Float[Array, "units"]:
    """What enters the activations, for one sample, all layers in a row."""
    return jnp.concatenate([jnp.ravel(z) for z in _entering(network, x)])


def _entering(network: Any, x: Float[Array, "..."]) -> list[Array]:
    entered = []
    if isinstance(network, Convolutional):
        x = as_sample(x, network.shape)
        for convolution in network.convolutions:
            entered.append(convolution(x))
            x = max_pool(network.activation(entered[-1]), network.pool)
    x = x.reshape(-1)
    for layer in network.layers[:-1]:
        entered.append(layer(x))
        x = network.activation(entered[-1])
    return entered


def _sizes(plan: Plan) -> list[int]:
    shapes = jax.eval_shape(_entering, plan.params, plan.objective.inputs[0])
    return [int(np.prod(z.shape)) for z in shapes]
