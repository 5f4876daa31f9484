"""How far an optimizer will be from its flow, to first order in the length of a step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import check_instance, check_positive
from ..flows import integrate
from ..objective import Objective
from ..optimizers import Optimizer
from ..trajectory import Stats, Status
from ._error_flow import doubled, error_flow


class FirstOrderLaw(eqx.Module):
    """The distance between an optimizer and its flow, for every step size at once.

    With h the time of a step (the step size of gradient descent, its root with momentum), step k is
    at `theta(t) + h v(t) + O(h^2)`, `t = k h`.

    - `times`: shape `(times,)`.
    - `distance`: shape `(times,)`, `h |v|` for the optimizer's own step size; `error`: its error
        bar, that of the integration. What is left of order `h^2` has none; it shows
        when the distance is measured at two step sizes.
    - `rate`: shape `(times,)`, `|v|`, the distance per step time; `vector`: v itself, with the
        structure of the parameters and a leading axis of times.
    - `params`: the flow, with a leading axis of times.
    - `optimizer`, `status`, `stats`: of the optimizer, and of the integration of both.
    """

    times: Float[Array, "times"]
    rate: Float[Array, "times"]
    rate_error: Float[Array, "times"]
    vector: PyTree[Float[Array, "times ..."]]
    params: PyTree[Float[Array, "times ..."]]
    optimizer: Optimizer
    status: Status = eqx.field(static=True)
    stats: Stats = eqx.field(static=True)

    @property
    def distance(self) -> Float[Array, "times"]:
        """For the optimizer's own step size."""
        return self.optimizer.time_per_step * self.rate

    @property
    def error(self) -> Float[Array, "times"]:
        """Of `distance`, as far as the integration goes."""
        return self.optimizer.time_per_step * self.rate_error

    def at(self, time_per_step: float) -> Float[Array, "times"]:
        """The distance for steps of another length in time; the friction stays what it is."""
        check_positive(time_per_step, "time_per_step")
        return time_per_step * self.rate

    def longest(self, epsilon: float) -> float:
        """The step time with which the distance is at most `epsilon` at all times."""
        check_positive(epsilon, "epsilon")
        largest = float(jnp.max(self.rate))
        return epsilon / largest if largest > 0 else float("inf")


def predicted_distance(
    optimizer: Optimizer,
    objective: Objective,
    params: PyTree,
    *,
    save_at: Any = None,
    t1: float | None = None,
    rtol: float = 1e-6,
    atol: float | None = None,
) -> FirstOrderLaw:
    """The distance of an optimizer to its flow, predicted from the flow and its curvature.

        law = tw.predicted_distance(tw.GradientDescent(1e-2), objective, params, save_at=run.times)
        law.distance, law.at(1e-3)

    For gradient descent the error per step time solves `v' = -H v - H g / 2` along the flow, from
    `v = 0`; for methods with momentum the equation of second order that the optimizer knows
    (`Optimizer.error_source`). It is good where steps are short against what changes: what it
    leaves out falls with the step, relatively.

    **Arguments:**

    - `optimizer`: `GradientDescent`, `HeavyBall`, `Nesterov` or `NesterovConstant`.
    - `objective`, `params`: the landscape, of a smooth network, and where both start.
    - `save_at`, `t1`, `rtol`, `atol`: as in `integrate`. The tolerances are for flow and error
        vector together.

    Costs 3 gradients wherever the flow takes one (2 with momentum).

    **Raises:** ValueError for an optimizer whose law is not known, and for a network with kinks,
    across which nothing is of first order; and as `integrate` does.

    ??? cite "Reference"

        Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I (1993), section II.8:
        asymptotic expansion of the global error. For heavy ball and Nesterov's method derived here.
    """
    check_instance(optimizer, Optimizer, "optimizer", "an Optimizer")
    check_instance(objective, Objective, "objective", "an Objective")
    flow = error_flow(optimizer)
    if objective.kinks(params).exist:
        raise ValueError(
            "objective: the network has kinks, across which the error is not of first order in the"
            " step; compare runs with the flow instead (`tw.compare`)."
        )
    start = params, jax.tree.map(jnp.zeros_like, params)
    found = integrate(flow, doubled(objective), start, save_at=save_at, t1=t1, rtol=rtol, atol=atol)
    points, vectors = found.params
    squares = [
        jnp.sum(leaf.reshape(leaf.shape[0], -1) ** 2, axis=1) for leaf in jax.tree.leaves(vectors)
    ]
    stats = found.stats
    counts = {
        "gradients": flow.price * stats.gradients,
        "error_gradients": flow.price * stats.error_gradients,
    }
    assert found.error is not None
    return FirstOrderLaw(
        times=found.times,
        rate=jnp.sqrt(sum(squares, start=jnp.zeros_like(squares[0]))),
        rate_error=found.error,
        vector=vectors,
        params=points,
        optimizer=optimizer,
        status=found.status,
        stats=Stats(**counts, steps=stats.steps, rejected=stats.rejected, solver=stats.solver),
    )
