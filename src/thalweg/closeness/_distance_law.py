"""How far an optimizer will be from its flow, by order in the length of a step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from .._checks import check_instance, check_positive, check_positive_integer
from .._numbers import significant, with_error
from .._trees import tree_dot
from ..flows import integrate
from ..objectives import AbstractObjective, check_objective
from ..optimizers import Optimizer
from ..results import AbstractResult, Stats, Status, axes_of, citations, draw_line, labelled
from ._error_flow import Extended, error_flow


class DistanceLaw(AbstractResult):
    """The distance between an optimizer and its flow, for every step size at once.

    With h the time of a step (the step size of gradient descent, its root with momentum), step k is
    at `theta(t) + h v(t) + O(h^2)`, `t = k h`, or, where the second order is known, at
    `theta(t) + h v(t) + h^2 w(t) + O(h^3)`.

    - `times`: shape `(times,)`.
    - `distance`: shape `(times,)`, `|h v|` or `|h v + h^2 w|` for the optimizer's own step size;
        `error`: its error bar, that of the integration. What is left of higher order has none; at
        first order it shows where the second differs.
    - `terms`: `(v,)` or `(v, w)`, each with the structure of the parameters and a leading axis of
        times; `gram`: shape `(times, order, order)`, their inner products.
    - `params`: the flow, with a leading axis of times.
    - `optimizer`, `status`, `stats`: of the optimizer, and of the integration of it all.
    """

    times: Float[Array, "times"]
    terms: tuple[PyTree[Float[Array, "times ..."]], ...]
    gram: Float[Array, "times order order"]
    flow_error: Float[Array, "times"]
    params: PyTree[Float[Array, "times ..."]]
    optimizer: Optimizer
    status: Status = eqx.field(static=True)
    stats: Stats = eqx.field(static=True)

    @property
    def vector(self) -> PyTree[Float[Array, "times ..."]]:
        """The first-order term v."""
        return self.terms[0]

    @property
    def rate(self) -> Float[Array, "times"]:
        """`|v|`: the distance per step time, for short steps."""
        return jnp.sqrt(self.gram[:, 0, 0])

    @property
    def distance(self) -> Float[Array, "times"]:
        """For the optimizer's own step size."""
        return self.at(self.optimizer.time_per_step)

    @property
    def error(self) -> Float[Array, "times"]:
        """The error of `distance` that the integration makes."""
        return jnp.linalg.norm(self._powers(self.optimizer.time_per_step)) * self.flow_error

    def at(self, time_per_step: float) -> Float[Array, "times"]:
        """The distance for steps of another length in time; the friction stays what it is."""
        check_positive(time_per_step, "time_per_step")
        h = self._powers(time_per_step)
        return jnp.sqrt(jnp.maximum(jnp.einsum("i,tij,j->t", h, self.gram, h), 0))

    def longest(self, epsilon: float) -> float:
        """The step time up to which the distance is at most `epsilon` at all times."""
        check_positive(epsilon, "epsilon")
        order, found = len(self.terms), np.inf
        for products in np.asarray(self.gram, float):
            # |sum h^i v_i|^2 = epsilon^2, the highest power first.
            polynomial = np.zeros(2 * order + 1)
            for i in range(order):
                for j in range(order):
                    polynomial[2 * order - (i + j + 2)] += products[i, j]
            polynomial[-1] = -(epsilon**2)
            roots = np.roots(polynomial)
            real = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)]
            found = min(found, float(np.min(real, initial=np.inf)))
        return found

    def lines(self) -> list[str]:
        """The distance at the end and where it is largest, and how it depends on the step."""
        top, last = int(jnp.argmax(self.distance)), len(self.times) - 1
        places = (("at last", last), ("at most", top))
        told = [
            f"{where}: {with_error(float(self.distance[i]), float(self.error[i]))}"
            f" at t = {significant(float(self.times[i]))}"
            for where, i in places
        ]
        order = "first order in the step" if len(self.terms) == 1 else "second order in the step"
        steps = significant(float(self.optimizer.time_per_step))
        first = f"predicted distance of {self.optimizer.name} from its flow, to {order}"
        return [
            first,
            *told,
            f"for steps of {steps} in time; terms of higher order have no error bar",
        ]

    def to_xarray(self) -> xr.Dataset:
        """The distance with its error, its rate per step time, and the terms by parameter array."""
        variables = {
            "distance": (["time"], np.asarray(self.distance)),
            "error": (["time"], np.asarray(self.error)),
            "rate": (["time"], np.asarray(self.rate)),
            **labelled("flow", self.params, ["time"]),
        }
        for i, term in enumerate(self.terms, start=1):
            variables |= labelled(f"term_{i}", term, ["time"])
        attributes = {
            "result": "distance law",
            "optimizer": repr(self.optimizer),
            "time_per_step": float(self.optimizer.time_per_step),
            "gradients": self.stats.gradients,
            "references": citations(predicted_distance, self.optimizer),
        }
        time = (["time"], np.asarray(self.times), {"units": "flow time"})
        return xr.Dataset(variables, {"time": time}, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The predicted distance with its error band."""
        ax = axes_of(ax, "time", "distance to the flow")
        label = f"predicted, {self.optimizer.name}"
        draw_line(ax, self.times, self.distance, self.error, label)
        return ax

    def _powers(self, h: float) -> Float[Array, "order"]:
        return jnp.asarray([h ** (i + 1) for i in range(len(self.terms))])


def predicted_distance(
    optimizer: Optimizer,
    objective: AbstractObjective,
    params: PyTree,
    *,
    save_at: Any = None,
    t1: float | None = None,
    order: int = 1,
    rtol: float = 1e-6,
    atol: float | None = None,
) -> DistanceLaw:
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
    - `save_at`, `t1`, `rtol`, `atol`: as in `integrate`. The tolerances are for flow and errors
        together.
    - `order`: 1, or 2 for gradient descent.

    Costs 3 gradients wherever the flow takes one (2 with momentum), 15 for the second order.

    **Raises:** ValueError for an optimizer whose law is not known to that order, and for a network
    with kinks, across which nothing is of first order; and as `integrate` does.

    ??? cite "Reference"

        Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I (1993), section II.8:
        asymptotic expansion of the global error. For heavy ball and Nesterov's method derived here.
    """
    check_instance(optimizer, Optimizer, "optimizer", "an Optimizer")
    check_objective(objective)
    check_positive_integer(order, "order")
    flow = error_flow(optimizer, order)
    if objective.kinks(params).exist:
        raise ValueError(
            "objective: the network has kinks, across which the error is not of first order in the"
            " step; compare runs with the flow instead (`tw.compare`)."
        )
    start = params, *(jax.tree.map(jnp.zeros_like, params) for _ in range(order))
    found = integrate(
        flow, Extended(objective), start, save_at=save_at, t1=t1, rtol=rtol, atol=atol
    )
    points, *terms = found.params
    stats = found.stats
    counts = {
        "gradients": flow.price * stats.gradients,
        "error_gradients": flow.price * stats.error_gradients,
    }
    assert found.error is not None
    return DistanceLaw(
        times=found.times,
        terms=tuple(terms),
        gram=jax.vmap(_gram)(tuple(terms)),
        flow_error=found.error,
        params=points,
        optimizer=optimizer,
        status=found.status,
        stats=Stats(**counts, steps=stats.steps, rejected=stats.rejected, solver=stats.solver),
    )


def _gram(terms: tuple[PyTree, ...]) -> Float[Array, "order order"]:
    return jnp.stack([jnp.stack([tree_dot(a, b) for b in terms]) for a in terms])
