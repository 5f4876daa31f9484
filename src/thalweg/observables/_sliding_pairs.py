"""How many kinks the flow slides along."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._checks import check_positive, check_positive_integer
from .._precision import jit
from ..objectives import AbstractObjective
from ._pattern import kink_pattern, total

# A pair that the flow crosses changes its side once, and twice if the flow turns round.
_CHATTERS = 3


class SlidingPairs(eqx.Module):
    """The number of (sample, kink) pairs that sit on their kink, found numerically.

        flow = tw.observe(flow, sliding=tw.observables.SlidingPairs(step_size=1e-3))
        flow.observables["sliding"]  # shape (saves,)

    Where the flow runs into a kink from both sides it can leave on neither: it slides along the
    kink, with a mean of both one-sided gradients as its velocity (Filippov, "Differential equations
    with discontinuous righthand sides", 1988). Gradient descent with small steps hops from one side
    to the other there, while it changes sides once at a kink that the flow merely crosses. So a few
    steps of gradient descent are taken from `params`, and the pairs are counted that change sides
    at least three times.

    **Arguments:**

    - `step_size`: of these steps. See below for what is small and what is too small.
    - `steps`: their number, at least 3; 12 by default.

    It is a number that was detected, and can be wrong:

    - Steps too large: gradient descent overshoots along directions in which
        `step_size * sharpness` is above 1, and above 2 it is unstable. It then hops over kinks on
        which nothing slides.
    - Steps too small: where `params` are on a kink only up to the error of a solver, the steps must
        get there, that is be longer together than this error.
    - Too few steps: the more unequal the two pushes are, the rarer are the visits to the side with
        the stronger one. If they are less than about `2 / steps` of all steps, the pair is missed.
    - What begins or ends to slide within the time `steps * step_size` may be counted or not.

    Counts entries of `objective.kink_pattern(params)`, not equations: samples that are multiples of
    each other share the kink of a ReLU without a bias, and a maximum over an axis or a window that
    slides between two of its arguments counts twice, once for each.

    Costs `steps` gradients and `steps + 1` passes forward.

    **Raises:** ValueError for a step size that is not positive, for fewer than 3 steps, and for a
    network without kinks that can be seen (loops are not looked into).
    """

    step_size: float | Float[Array, ""]
    steps: int = eqx.field(static=True, default=12)

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_positive_integer(self.steps, "steps")
        if self.steps < _CHATTERS:
            raise ValueError(
                f"steps: {self.steps} steps cannot show {_CHATTERS} changes of side; take at least"
                f" {_CHATTERS}."
            )

    def __call__(self, objective: AbstractObjective, params: PyTree) -> Int[Array, ""]:
        """The number of pairs that slide at `params`."""
        return _chattering(objective, params, jnp.asarray(self.step_size), int(self.steps))


@jit
def _chattering(
    objective: AbstractObjective, params: PyTree, step_size: Array, steps: int
) -> Array:
    """How many pairs change sides at least `_CHATTERS` times in steps of gradient descent."""

    def step(carry, _):
        point, before, changes = carry
        gradient = objective.gradient(point)
        # A step size of higher precision must not raise that of the parameters.
        point = jax.tree.map(lambda p, g: p - step_size.astype(p.dtype) * g, point, gradient)
        after = kink_pattern(objective, point)
        # No further than it matters, so that a byte for each pair will do.
        changes = jax.tree.map(
            lambda n, a, b: jnp.minimum(n + (a != b), _CHATTERS).astype(n.dtype),
            changes,
            before,
            after,
        )
        return (point, after, changes), None

    start = kink_pattern(objective, params)
    none = jax.tree.map(lambda side: jnp.zeros(side.shape, jnp.int8), start)
    (_, _, changes), _ = jax.lax.scan(step, (params, start, none), length=steps)
    return total([n >= _CHATTERS for n in changes])
