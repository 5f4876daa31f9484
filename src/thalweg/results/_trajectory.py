"""What a flow or an optimizer leaves behind."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, PyTree

from .._checks import check_positive
from .._numbers import significant, with_error
from .._trees import tree_norm, tree_stack, tree_sub
from ..objectives import AbstractObjective
from ._citations import citations
from ._drawing import axes_of, draw_line
from ._result import AbstractResult, labelled
from ._status import Stats, Status


class Trajectory(AbstractResult):
    """Saved times of one dynamics, with everything recorded there.

    - `times`: shape `(saves,)`, flow time. An optimizer's k-th iterate stands at
      `k * optimizer.time_per_step`.
    - `params`: the parameters' PyTree, each leaf with a leading axis of saved times: those at the
      last one are `jax.tree.map(lambda x: x[-1], trajectory.params)`.
    - `observables`: name -> array with a leading axis of saved times; "loss" is always there.
    - `error`: shape `(saves,)`, the estimated Euclidean distance, over all parameters, to the exact
      flow; `None` for an optimizer, whose iterates are what they are up to round-off. An estimate,
      not a bound: features of the landscape that are narrower than a step may go unseen.
    - `steps`: shape `(saves,)`, step numbers of an optimizer; `None` for a flow.
    - `status`, `stats`, `dynamics`, `objective`, `initial`: how it ended, what it cost, what was
      followed, on which landscape, and from which parameters.
    - `limit`: for a flow that met the tolerance of `until`, where it ended, and whether it stays
      there: a `thalweg.until.CriticalPoint`. Otherwise `None`.
    """

    times: Float[Array, "saves"]
    params: PyTree
    observables: dict[str, PyTree]
    error: Float[Array, "saves"] | None
    steps: Int[Array, "saves"] | None
    status: Status = eqx.field(static=True)
    stats: Stats = eqx.field(static=True)
    dynamics: Any
    objective: AbstractObjective | None = None
    initial: PyTree = None
    limit: Any = None

    @property
    def loss(self) -> Float[Array, "saves"]:
        """The objective's value at every saved time."""
        return self.observables["loss"]

    def __len__(self) -> int:
        """The number of saved times."""
        return len(self.times)

    def __getitem__(self, index: Any) -> Any:
        """`trajectory[i]`: the parameters at a saved time. `trajectory[a:b]`: a part of it."""
        if isinstance(index, slice):
            parts = (self.times, self.params, self.observables, self.error, self.steps)
            times, params, observables, error, steps = jax.tree.map(lambda x: x[index], parts)
            return Trajectory(
                times, params, observables, error, steps, self.status, self.stats,
                self.dynamics, self.objective, self.initial,
            )  # fmt: skip
        place = range(len(self))[index]
        return jax.tree.map(lambda x: x[place], self.params)

    @property
    def final(self) -> PyTree:
        """The parameters at the last saved time."""
        return self[-1]

    @staticmethod
    def from_checkpoints(
        params: Sequence[PyTree],
        *,
        step_size: float,
        steps: Sequence[int] | None = None,
        objective: AbstractObjective | None = None,
        dynamics: Any = None,
    ) -> "Trajectory":
        """A run that was made elsewhere, from its saved parameters.

            run = tw.Trajectory.from_checkpoints(saved, step_size=0.1, steps=[0, 100, 200])
            flow = tw.integrate(tw.GradientFlow(), objective, saved[0], save_at=run.times)
            tw.compare(run, flow)

        **Arguments:**

        - `params`: parameters of the same structure, in the order of steps.
        - `step_size`: what a step takes of the flow's time: the learning rate of gradient descent.
        - `steps`: the step numbers; 0, 1, 2, ... by default.
        - `objective`: for the losses, which are NaN without it.
        - `dynamics`: the optimizer that made the run, where it is one of the library's.

        **Raises:** ValueError for no parameters, for structures or shapes that differ, and for
        steps that do not increase or are not as many as the parameters.
        """
        if not params:
            raise ValueError("params: a trajectory needs parameters at one time at least.")
        shapes = [jax.tree.map(jnp.shape, point) for point in params]
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(f"params[{i}]: other arrays than those of params[0].")
        check_positive(step_size, "step_size")
        numbers = np.arange(len(params)) if steps is None else np.asarray(steps)
        if numbers.shape != (len(params),) or np.any(np.diff(numbers) <= 0) or numbers[0] < 0:
            raise ValueError(
                f"steps: expected {len(params)} step numbers in increasing order, one for each of"
                f" the parameters, got {numbers.tolist()}."
            )
        points = [jax.tree.map(jnp.asarray, point) for point in params]
        if objective is not None:
            objective.check(points[0])
        losses = [jnp.nan if objective is None else objective.value(p) for p in points]
        return Trajectory(
            times=jnp.asarray(numbers * step_size),
            params=tree_stack(points),
            observables={"loss": jnp.stack([jnp.asarray(loss) for loss in losses])},
            error=None,
            steps=jnp.asarray(numbers),
            status=Status(),
            stats=Stats(gradients=-1, error_gradients=0, steps=int(numbers[-1])),
            dynamics=dynamics,
            objective=objective,
            initial=points[0] if numbers[0] == 0 else None,
        )

    def lines(self) -> list[str]:
        """What was followed and how far, how it ended, losses, error and cost."""
        name = getattr(self.dynamics, "name", "trajectory")
        first, last = (significant(float(self.times[i])) for i in (0, -1))
        status = self.status.kind if not self.status.message else self.status.message
        told = [f"{name}, {len(self)} saved times from t = {first} to {last}: {status}"]
        start, end = (significant(float(self.loss[i])) for i in (0, -1))
        told.append(f"loss: {start} at first, {end} at last")
        if self.initial is not None:
            moved = float(tree_norm(tree_sub(self.final, self.initial)))
            error = None if self.error is None else float(self.error[-1])
            told.append(f"moved: {with_error(moved, error)}")
        for name, values in self.observables.items():
            if name != "loss" and getattr(values, "ndim", 0) == 1:
                told.append(f"{name}: {significant(float(values[-1]))} at last")
        if self.limit is not None:
            told.append(str(self.limit))
        return [*told, self._cost()]

    def _cost(self) -> str:
        stats = self.stats
        gradients = "gradients not known" if stats.gradients < 0 else f"{stats.gradients} gradients"
        extra = f", {stats.error_gradients} for the error" if stats.error_gradients > 0 else ""
        how = f", by {stats.solver}" if stats.solver else ""
        return f"cost: {gradients}{extra}, {stats.steps} steps{how}"

    def to_xarray(self) -> xr.Dataset:
        """Times, losses, errors, observables and parameters.

        Each array of the parameters is a variable of its own, named by its place in the PyTree.
        Attributes hold the dynamics, the status, the cost, and the works to cite.
        """
        variables = labelled("params", self.params, ["time"])
        for name, values in self.observables.items():
            variables |= labelled(name, values, ["time"])
        if self.error is not None:
            meaning = {"long_name": "estimated Euclidean distance to the exact flow"}
            variables["error"] = (["time"], np.asarray(self.error), meaning)
        coordinates: dict[str, Any] = {
            "time": (["time"], np.asarray(self.times), {"units": "flow time"})
        }
        if self.steps is not None:
            coordinates["step"] = (["time"], np.asarray(self.steps))
        attributes = {
            "result": "trajectory",
            "dynamics": repr(self.dynamics),
            "status": self.status.kind,
            "message": self.status.message,
            "gradients": self.stats.gradients,
            "error_gradients": self.stats.error_gradients,
            "steps": self.stats.steps,
            "rejected": self.stats.rejected,
            "solver": self.stats.solver,
            "references": citations(self.dynamics),
        }
        return xr.Dataset(variables, coordinates, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The loss at every saved time. It has no error bar: that of a flow is in parameters."""
        ax = axes_of(ax, "time", "loss")
        draw_line(ax, self.times, self.loss, label=getattr(self.dynamics, "name", None))
        return ax
