"""Gradients averaged over the steps of a flow that may slide along kinks."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PyTree

from ._batches import Parts
from ._kink_memory import KinkMemory, first_memory, next_memory
from ._kinks import Findings, evaluate
from .objective import Objective

# The steepness of arguments is estimated along so many random directions, ...
_PROBES = 16
# ... and looked at along one more after so many steps, since it changes with the parameters.
_PATIENCE = 8


class FlowMemory(eqx.Module):
    """What a flow remembers of the kinks of all micro-batches, and for how many steps it did."""

    kinks: Parts
    steps: Int[Array, ""]


class Known(eqx.Module):
    """A landscape of which nothing is asked but the gradient that is known already."""

    known: PyTree[Array]

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient, wherever the parameters are."""
        del params
        return self.known


def gradient_of_step(
    objective: Objective,
    params: PyTree,
    displacement: PyTree,
    length: Any,
    memory: FlowMemory | None,
) -> tuple[PyTree, FlowMemory]:
    """The gradient, averaged over a step of gradient flow, and what is remembered of its kinks.

    The step, of a `length` in time, is the segment `params +- displacement / 2` if it is made along
    the slope of the step before it; `memory` is what this returned for that step. Without one, the
    flow begins at `params`. Kinks that are crossed count as in `Objective.mean_gradient`. Where the
    flow slides along a kink, its sides count so that the step ends on it. Costs 4/3 of a gradient;
    at the beginning, about ten.
    """

    def batch(losses, known=None):
        def total(p):
            return jnp.sum(losses(p))

        gradient, now, pulls = _gradient(total, params, displacement, length, known)
        pulls = [pull / objective.samples for pull in pulls]
        return gradient, [m.pulled(pull) for m, pull in zip(now, pulls, strict=True)]

    gradient, kinks = objective.over_batches(batch, None if memory is None else memory.kinks)
    if memory is None:
        seen = _looked_at(objective, params, kinks, 0, _PROBES, 1.0)
        return gradient, FlowMemory(seen, jnp.zeros((), jnp.int32))
    steps = memory.steps + 1
    kinks = jax.lax.cond(
        steps % _PATIENCE == 0,
        lambda: _looked_at(objective, params, kinks, steps, 1, 1 / _PROBES),
        lambda: kinks,
    )
    return gradient, FlowMemory(kinks, steps)


def _looked_at(objective, params, kinks, steps, probes, weight) -> Parts:
    """The memory, with the steepness of arguments estimated along more random directions."""
    leaves, tree = jax.tree.flatten(params)
    keys = jr.split(jr.fold_in(jr.key(0), steps), len(leaves))
    directions = jax.tree.unflatten(
        tree,
        [jr.rademacher(k, (probes, *a.shape), a.dtype) for k, a in zip(keys, leaves, strict=True)],
    )

    def batch(losses, known: list[KinkMemory]):
        found = _steepness(lambda p: jnp.sum(losses(p)), params, known, directions)
        return None, [m.seen(new, weight) for m, new in zip(known, found, strict=True)]

    return objective.over_batches(batch, kinks)[1]


class _Remembering(Findings):
    """Shares as a flow remembers them, and zeros added behind the kinks, elementwise.

    By the derivative in these it is known how much the function changes with what comes out of a
    kink.
    """

    def __init__(self, memory: list[KinkMemory] | None, zeros: list[Array], length: Any):
        super().__init__()
        self.now: list[KinkMemory] = []
        self._known = None if memory is None else iter(memory)
        self._zeros = iter(zeros)
        self._length = length

    def share(self, middle, end, truth):
        if self._known is None:
            self.now.append(first_memory(truth, middle.dtype))
        else:
            self.now.append(next_memory(next(self._known), middle, end, truth, self._length))
        return self.now[-1].share

    def seen(self, result, middle, there, here):
        return result._replace(value=result.value + next(self._zeros))


def _gradient(
    function: Callable[[PyTree], Array],
    params: PyTree,
    displacement: PyTree,
    length: Any,
    memory: list[KinkMemory] | None,
) -> tuple[PyTree, list[KinkMemory], list[Array]]:
    """The mean gradient, what is known of every kink, and the derivatives by what comes out."""

    def outputs(p):
        findings = Findings()
        evaluate(function, p, displacement, findings)
        return findings.outputs

    def value(p, zeros):
        findings = _Remembering(memory, zeros, length)
        return evaluate(function, p, displacement, findings), findings.now

    zeros = [jnp.zeros(out.shape, out.dtype) for out in jax.eval_shape(outputs, params)]
    (gradient, pulls), now = jax.grad(value, argnums=(0, 1), has_aux=True)(params, zeros)
    return gradient, now, pulls


class _Arguments(Findings):
    """The numbers whose signs tell the sides, and by how much the two cases differ."""

    def __init__(self, memory: list[KinkMemory]):
        super().__init__()
        self.arguments: list[Array] = []
        self.gaps: list[Array] = []
        self._known = iter(memory)

    def share(self, middle, end, truth):
        return next(self._known).share

    def seen(self, result, middle, there, here):
        self.arguments.append(middle)
        self.gaps.append(there.value - here.value)
        return result


def _steepness(
    function: Callable[[PyTree], Array],
    params: PyTree,
    memory: list[KinkMemory],
    directions: PyTree,
) -> list[Array]:
    """For every kink, how steep its argument is, times the jump of its slope: an estimate.

    The product is that of the gradients of the argument and of what the two cases differ by: for a
    ReLU, the square of the length of the first. It is a mean over random `directions`, stacked
    along the first axis, whose entries are independent signs.
    """

    def arguments(p):
        findings = _Arguments(memory)
        evaluate(function, p, jax.tree.map(jnp.zeros_like, p), findings)
        return findings.arguments, findings.gaps

    def add(total, direction):
        moved, opened = jax.jvp(arguments, (params,), (direction,))[1]
        products = [a * b for a, b in zip(moved, opened, strict=True)]
        # A case may be infinite where it does not apply.
        finite = [jnp.where(jnp.isfinite(p), p, 0) for p in products]
        return [t + p for t, p in zip(total, finite, strict=True)], None

    none = [jnp.zeros(m.share.shape, m.share.dtype) for m in memory]
    total, _ = jax.lax.scan(add, none, directions)
    count = jax.tree.leaves(directions)[0].shape[0]
    return [t / count for t in total]
