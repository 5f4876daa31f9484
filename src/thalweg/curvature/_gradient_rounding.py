"""How far a computed gradient may be from the gradient, by rounding."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._precision import jit
from ..objectives import Objective
from ._bound import Passage, loss_gradient
from ._chain import chain_of, layer_gain, probes_of
from ._rounding import rounding_unit


@jit
def gradient_rounding(network: Any, objective: Objective, radius: Any) -> Float[Array, ""]:
    """A bound on the norm of what rounding adds to the gradient, all over a ball.

    For the networks of `lower_bound`. The gradient with respect to a layer is the mean over samples
    of what enters the layer times what comes back to it. Errors of both, and of their sum, are
    bounded by sums of absolute values, which do not cancel where the gradients of samples do.
    """
    unit = rounding_unit(network, objective)
    passage = Passage.through(network, radius, unit)
    gains = [layer_gain(link.layer) for link in chain_of(network)[0]]

    def of_sample(x, y):
        entry = passage.entering(x)
        slope, _ = loss_gradient(network, objective, x, y, probes_of(network, x))
        steeper, wrong = passage.slopes(objective.loss, slope, entry, y)  # pyright: ignore
        total = jnp.zeros(())
        for i, gain in enumerate(gains):
            back = passage.sized[i][-1]
            total += (wrong + 2 * unit * steeper) * back * entry.changes[i]
            total += steeper * back * gain * entry.losses[i]
        return total

    mean = objective.mean_of_sums(lambda x, y: jnp.sum(jax.vmap(of_sample)(x, y)))
    return mean * (1 + unit)
