"""How many kinks were crossed."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from ..objectives import AbstractObjective
from ._pattern import kink_pattern, total


class ActivationFlips(eqx.Module):
    """The number of (sample, kink) pairs that changed sides since the saved time before.

        flow = tw.observe(flow, flips=tw.observables.ActivationFlips())
        flow.observables["flips"]  # shape (saves,), the first is 0

    An integer, out of as many as there are entries in `objective.kink_pattern(params)`: a ReLU has
    one for every sample and neuron, a maximum over an axis or a window one for every argument. So
    a maximum that moves from one place to another counts twice; if several arguments are equal, as
    the zeros are that ReLUs leave to a pooling layer, more of them may change at once. A pair that
    went to the other side and came back between two saved times is not seen. Remembers the
    pattern, one truth value for every entry.

    Costs no gradient, only a pass forward.

    **Raises:** ValueError for a network without kinks that can be seen (loops are not looked into).
    """

    def initial(
        self, objective: AbstractObjective, params: PyTree
    ) -> list[Bool[Array, "samples ..."]]:
        """The pattern at the first saved time."""
        return kink_pattern(objective, params)

    def __call__(
        self, objective: AbstractObjective, params: PyTree, memory: list[Bool[Array, "samples ..."]]
    ) -> tuple[Int[Array, ""], list[Bool[Array, "samples ..."]]]:
        """The number of entries that differ from `memory`, and the pattern at `params`."""
        pattern = kink_pattern(objective, params)
        return total(jax.tree.map(jnp.not_equal, pattern, memory)), pattern
