"""Bounds on the eigenvalues of the Hessian from norms of weights alone."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import check_positive
from .._precision import jit
from .._trees import tree_dtype
from ..losses import Loss
from ..networks import FullyConnected
from ..objectives import AbstractObjective, Objective, check_objective, parted
from ._chain import bias_size, chain_of, layer_gain, layer_norm, layer_size, probes_of, signals
from ._curvature_bound import CurvatureBound
from ._rounding import rounding_unit, slope_size


def lower_bound(
    objective: AbstractObjective, params: PyTree, *, radius: float = 0.0
) -> CurvatureBound:
    """A closed-form bound from below on the smallest eigenvalue of the Hessian.

        bound = tw.curvature.lower_bound(objective, network, radius=0.1)

    For fully connected and convolutional networks (strides, max-pooling) with linear, ReLU or leaky
    ReLU activations, without biases beyond the first layer, and a convex loss. It needs the norms
    of the layers, what goes into each of them, and the gradients of the loss; no Hessian-vector
    product. The proof is in docs/curvature.md. For linear fully connected networks it is sharper:
    samples may cancel.

    **Arguments:**

    - `objective`: loss and data; it predicts with the network. Weight decay is allowed for.
    - `params`: the network, which is its own PyTree of parameters.
    - `radius`: of the ball in which the bound is to hold, all parameters taken together.

    Costs about 2 gradients, with the singular values of every layer on top.

    **Raises:** TypeError for a network or loss of another kind; ValueError where a hypothesis
    fails, saying which, for parameters that do not fit or an objective that predicts something
    else, and for a negative radius.

    ??? cite "Reference"

        Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural networks",
        Advances in Neural Information Processing Systems, 2021 (the bound by norms, for a point).
    """
    check_positive(radius, "radius", zero=True)
    plain, lowest, _ = unpenalised(objective)
    network = checked(params, plain)
    bound = bound_at(network, plain, radius)
    # The sum is rounded, and stays a bound.
    rounding = jnp.finfo(bound.value.dtype).eps * (jnp.abs(bound.value) + jnp.abs(lowest))
    return eqx.tree_at(lambda b: b.value, bound, bound.value + lowest - rounding)


@jit
def bound_at(network: Any, objective: Objective, radius: Any) -> CurvatureBound:
    """`lower_bound` without its checks, for many points: can be traced."""
    matrix = interaction(network, objective, radius)
    largest = jnp.max(jnp.linalg.eigvalsh(matrix))
    # Nothing cancels any more.
    margin = rounding_unit(network, objective)
    return CurvatureBound(-largest * (1 + margin), radius, matrix)


def interaction(network: Any, objective: Objective, radius: Any) -> Float[Array, "layers layers"]:
    """For each pair of layers a bound on the second derivative of the loss through the network."""
    if is_linear(network):
        return _of_linear_layers(network, objective, radius)
    return _of_homogeneous_layers(network, objective, radius)


def _of_homogeneous_layers(network, objective, radius):
    layers = [link.layer for link in chain_of(network)[0]]
    gains = [layer_gain(layer) for layer in layers]
    passage = Passage.through(network, radius, rounding_unit(network, objective))
    count = len(layers)

    def of_sample(x, y):
        probes = probes_of(network, x)
        entry = passage.entering(x)
        slope, pull = loss_gradient(network, objective, x, y, probes)
        steeper, wrong = passage.slopes(objective.loss, slope, entry, y)
        rows = []
        for low in range(count):
            row = [jnp.zeros(())] * (low + 1)
            for high in range(low + 1, count):
                # At the point itself the slopes of all activations are known.
                last = count - 1
                farther = steeper * passage.passed[high][last]
                near = pull[high] + wrong * passage.passed[high][last]
                near += passage.unit * (slope + wrong) * passage.sized[high][last]
                force = jnp.where(radius > 0, farther, jnp.minimum(near, farther))
                between = passage.passed[low][high - 1] * passage.steepest
                row.append(force * gains[high] * between * entry.changes[low])
            rows.append(jnp.stack(row))
        return jnp.stack(rows)

    upper = objective.mean_of_sums(lambda x, y: jnp.sum(jax.vmap(of_sample)(x, y), axis=0))
    return upper + upper.T


class Entry(NamedTuple):
    """For one sample, bounds within the ball on what enters each layer and what leaves the last.

    - `changes`: the change that each layer's weights make at once; `lengths`: of what enters.
    - `moved`: how far the outputs move from what was computed at the centre, rounding included.
    - `rounded`: how far they are from what they should be by rounding alone; `losses`: so much for
        what enters each layer.
    - `outputs`: the norm of the outputs.
    """

    changes: list[Array]
    lengths: list[Array]
    losses: list[Array]
    moved: Array
    rounded: Array
    outputs: Array


class Passage(NamedTuple):
    """Bounds within a ball on how signals pass through a network, rounding included.

    `passed[i][j]` bounds what passes from the outputs of layer i to those of layer j, `sized[i][j]`
    the same with absolute values of all weights.
    """

    network: Any
    radius: Any
    unit: float
    steepest: float
    passed: list[list[Array]]
    sized: list[list[Array]]

    @staticmethod
    def through(network: Any, radius: Any, unit: float) -> "Passage":
        """For a ball of this radius around the network's parameters."""
        links, activation, _ = chain_of(network)
        steepest = max(abs(slope) for slope in activation.slopes or ())
        norms, sizes = zip(*(_norm_and_size(k.layer, radius, unit) for k in links), strict=True)
        tables = [_passing(steepest, numbers) for numbers in (norms, sizes)]
        return Passage(network, radius, unit, steepest, *tables)

    def entering(self, x: Array) -> Entry:
        """What one sample makes of it."""
        links, _, _ = chain_of(self.network)
        probes, (outputs, inputs) = probes_of(self.network, x), signals(self.network, x)
        moved = rounded = jnp.zeros(())
        changes, lengths, losses = [], [], []
        for i, (link, z) in enumerate(zip(links, inputs, strict=True)):
            gain, constant = layer_gain(link.layer), bias_size(link.layer, probes[i].size)
            norm, size = _norm_and_size(link.layer, self.radius, self.unit)
            length = jnp.linalg.norm(z) + moved
            changes.append(jnp.hypot(gain * length, constant))
            lengths.append(length)
            losses.append(rounded)
            own = self.radius * jnp.hypot(gain * jnp.linalg.norm(z), constant)
            sizes = size * length
            if link.layer.bias is not None:
                sizes += constant * (jnp.linalg.norm(link.layer.bias) + self.radius)
            steepest = self.steepest if i < len(links) - 1 else 1.0
            moved = (norm * moved + own + self.unit * sizes) * steepest
            rounded = (norm * rounded + self.unit * sizes) * steepest
        return Entry(changes, lengths, losses, moved, rounded, jnp.linalg.norm(outputs) + moved)

    def slopes(self, loss: Loss, slope: Array, entry: Entry, target: Array) -> tuple[Array, Array]:
        """The loss's gradient in the outputs: a bound on it, and how wrong it is by rounding."""
        own = self.unit * slope_size(loss, entry.outputs, target)
        wrong = loss.smoothness * entry.rounded + own
        return jnp.minimum(slope + loss.smoothness * entry.moved + own, loss.steepness), wrong


def _norm_and_size(layer, radius, unit):
    """Bounds on a layer's operator norm in the ball, with weights as they are and absolute."""
    size = layer_size(layer) + layer_gain(layer) * radius
    return layer_norm(layer) + layer_gain(layer) * radius + unit * size, size


def _passing(steepest, norms):
    passed = [[jnp.ones(())] * len(norms) for _ in norms]
    for low in range(len(norms)):
        for high in range(low + 1, len(norms)):
            passed[low][high] = passed[low][high - 1] * steepest * norms[high]
    return passed


def loss_gradient(network, objective, x, y, probes):
    """Norms of the loss's gradient with respect to the outputs, and to what leaves each layer."""

    def loss(probes):
        return objective.loss(signals(network, x, probes)[0][None], y[None])[0]

    pulls = [jnp.linalg.norm(g) for g in jax.grad(loss)(probes)]
    return pulls[-1], pulls


def _of_linear_layers(network, objective, radius):
    """With the gradient of the loss with respect to the end-to-end matrix."""
    weights, gains, as_input = linear_layers(network)
    count, unit = len(weights), rounding_unit(network, objective)
    sizes = [jnp.linalg.norm(w) for w in weights]

    def sums(x, y):
        outputs = x = as_input(x)
        for weight in weights:
            outputs = outputs @ weight.T
        slopes = jax.grad(lambda z: jnp.sum(objective.loss(z, y)))(outputs)
        # Of samples, absolute values: what the sums below are exact to.
        length, slope = (jnp.linalg.norm(a, axis=1) for a in (x, slopes))
        most = product(sizes) * length
        wrong = objective.loss.smoothness * most
        wrong += jax.vmap(partial(slope_size, objective.loss))(most, y)
        lost = unit * jnp.sum((wrong + slope) * length)
        return slopes.T @ x, x.T @ x, lost

    gradient, second_moment, lost = objective.mean_of_sums(sums)
    norms = [jnp.linalg.norm(w, 2) + unit * size for w, size in zip(weights, sizes, strict=True)]
    wider = [norm + gain * radius for norm, gain in zip(norms, gains, strict=True)]
    # What the end-to-end matrix, and with it the gradient, changes by within the ball.
    whole = product(wider) - product(norms) + unit * product(wider)
    spread = jnp.linalg.norm(second_moment, 2) + unit * jnp.trace(second_moment)
    steeper = objective.loss.smoothness * spread * whole
    # With what rounding may have taken from the gradient, and from products with it.
    size = jnp.linalg.norm(gradient)
    rows = []
    for low in range(count):
        row = [jnp.zeros(())] * (low + 1)
        for high in range(low + 1, count):
            between = chained(weights[low + 1 : high])
            middle = jnp.linalg.norm(between, 2) if between is not None else jnp.ones(())
            middle += product(wider[low + 1 : high]) - product(norms[low + 1 : high])
            middle += unit * (product(sizes[low + 1 : high]) + product(wider[low + 1 : high]))
            ends = _surrounded(gradient, weights[:low], weights[high + 1 :])
            outer, outer_wider, outer_size = (
                product(n[:low]) * product(n[high + 1 :]) for n in (norms, wider, sizes)
            )
            ends = jnp.linalg.norm(ends, 2) + (lost + unit * size) * outer_size
            ends += (size + lost) * (outer_wider - outer + unit * outer_wider)
            ends += steeper * outer_wider
            row.append(gains[low] * gains[high] * middle * ends)
        rows.append(jnp.stack(row))
    upper = jnp.stack(rows)
    return upper + upper.T


def is_linear(network: Any) -> bool:
    """Whether the sharper bounds for dense linear layers apply."""
    return isinstance(network, FullyConnected) and network.activation.slopes == (1.0, 1.0)


def linear_layers(network: FullyConnected) -> tuple[list[Array], list[float], Any]:
    """Scaled weights and gains of dense layers, and a function from samples to their inputs."""
    gains = [abs(layer.weight_scale) for layer in network.layers]
    weights = [layer.weight_scale * layer.weight for layer in network.layers]
    first = network.layers[0]
    if first.bias is not None:
        # One more input, which is 1.
        weights[0] = jnp.concatenate([weights[0], first.bias_scale * first.bias[:, None]], axis=1)
        gains[0] = max(gains[0], abs(first.bias_scale))

    def as_input(x):
        x = x.reshape(x.shape[0], -1)
        if first.bias is not None:
            x = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
        return x

    return weights, gains, as_input


def product(numbers):
    return jnp.prod(jnp.stack(numbers)) if numbers else jnp.ones(())


def chained(weights):
    """The product of consecutive layers, the first one rightmost."""
    result = None
    for weight in weights:
        result = weight if result is None else weight @ result
    return result


def _surrounded(gradient, below, above):
    """`below gradient^T above`, the gradient seen from between two layers."""
    result = gradient.T
    before, after = chained(below), chained(above)
    result = result if before is None else before @ result
    return result if after is None else result @ after


def unpenalised(objective: AbstractObjective) -> tuple[Objective, Array, Array]:
    """The objective that the bound is for, and the least and largest curvature of its penalties."""
    plain, lowest, highest = parted(objective)
    plain = check_objective(plain, Objective, what="the closed-form bound")
    return plain, lowest, highest


def checked(params: PyTree, objective: Objective) -> Any:
    """The parameters, which are a network that the bound is for."""
    links, activation, _ = chain_of(params)
    if jnp.ndim(links[-1].layer.weight) != 2:
        raise ValueError("params: of a trajectory, take one row: `flow[i]`.")
    remedy = (
        "for any network, `tw.extreme_eigenvalues` gives intervals, and certificates take"
        " `evidence=tw.closeness.Intervals()`."
    )
    if not activation.homogeneous:
        raise ValueError(
            f"network: the bound is for homogeneous activations (linear, ReLU, leaky ReLU), not"
            f" {activation.name}; {remedy}"
        )
    for i, link in enumerate(links[1:], start=2):
        if link.layer.bias is not None:
            raise ValueError(
                f"network: the bound allows biases in the first layer only, and layer {i} has"
                f" them (`bias=False` makes a network without any); {remedy}"
            )
    if not isinstance(objective.loss, Loss):
        raise TypeError(
            "objective: the bound is for the losses of `tw.losses`, of which it knows that they are"
            f" convex and how smooth; {remedy}"
        )
    objective.check(params)
    found = objective.predictions(params)
    expected = jax.vmap(params)(objective.inputs)
    scale = 1 + float(jnp.max(jnp.abs(expected)))
    tolerance = 1e4 * float(jnp.finfo(tree_dtype(params)).eps) * scale
    if found.shape != expected.shape or float(jnp.max(jnp.abs(found - expected))) > tolerance:
        raise ValueError("objective: predicts something else than this network.")
    return params
