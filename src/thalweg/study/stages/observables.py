"""The stage that records observables along flows and runs."""

from collections.abc import Iterator
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import AfterValidator

from ..._names import look_up
from ..._numbers import significant
from ..._precision import jit
from ..._section import Section
from ..._trees import tree_norm
from ...datasets import DataShape
from ...observables import OBSERVABLES, NamedObservable, observe
from ...results import Trajectory
from .._consistency import Sections
from .._cost import Cost
from .._errors import FieldError
from .._needs import PRODUCTS, READ, ROWS, Need, Sizes, need
from ..charts import Chart, Figure, Line
from ..lines import colour_of, outside
from ..results import Member, Results
from ..work import Work
from ._stage import Stage


def _known(name: str) -> str:
    look_up(name, OBSERVABLES, "record")
    return name


class ObservablesSection(Section):
    """`[observables]`: what is recorded beside the loss at every saved time, by name.

    By default the accuracy, where data have class labels.
    """

    record: list[Annotated[str, AfterValidator(_known)]] | None = None

    def names(self, classes: int | None) -> list[str]:
        """What is recorded for data with so many classes."""
        if self.record is None:
            return ["accuracy"] if classes is not None else []
        return list(dict.fromkeys(self.record))


class Observables(Stage):
    """What was asked for by name, at every saved time of all flows and runs."""

    name = "observables"
    after = ("flows", "optimizers")

    def carry_out(self, work: Work) -> None:
        names = work.plan.spec.observables.names(work.plan.classes)
        parts = [(flow.name, lambda flow=flow: work.flow(flow)) for flow in work.plan.flows]
        parts += [(run.name, lambda run=run: work.run(run)) for run in work.plan.runs]
        left = [part for part in parts if not work.store.complete(f"observables/{part[0]}")]
        if not names or not left:
            return
        with work.progress.stage("observables", len(left), "trajectories") as bar:
            for done, (part, trajectory) in enumerate(left):
                bar.at(done)
                _carry_out(work, part, trajectory(), names)
            bar.at(len(left))

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        if not sections.sound("flow", "observables") or sections["observables"].record == []:
            return
        rows = READ * (sections["flow"].saves + 1) * sizes.vector
        yield need("observables", (rows, ROWS), (sizes.product, PRODUCTS))

    def misfits(self, sections: Sections, shape: DataShape, sizes: Sizes) -> Iterator[FieldError]:
        if not sections.sound("observables"):
            return
        there = {"classes": shape.classes is not None, "kinks": sections["network"].kinks}
        for i, name in enumerate(sections["observables"].record or []):
            wants = OBSERVABLES[name].needs
            if wants is not None and not there[wants]:
                what = {"classes": "data with class labels", "kinks": "a network with kinks"}[wants]
                yield FieldError(("observables", "record", i), f"{name!r} needs {what}")

    def draws(self, results: Results) -> Iterator[Figure]:
        for name, named in OBSERVABLES.items():
            lines = [
                _line(part, seen, name, results)
                for part in (*results.flows, *results.runs)
                if (seen := results.part(self.name, part.name)) is not None and name in seen.data
            ]
            if lines:
                title = f"{named.title[0].upper()}{named.title[1:]}"
                chart = Chart(title, "flow time t", named.title, lines)
                # What jumps counts something, from zero on.
                shown = chart.with_log_where_it_helps() if named.smooth else chart
                yield Figure(shown, f"{title}. {_grounds(named)}")

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        seen = results.part(self.name, run.name)
        if seen is None:
            return {}
        names = [name for name in OBSERVABLES if name in seen.data]
        return {OBSERVABLES[name].title: significant(seen.numbers(name)[-1]) for name in names}

    def titled(self, part: str) -> str:
        return f"observables, {part}"


def _grounds(named: NamedObservable) -> str:
    """What is known of its error."""
    if named.smooth:
        return (
            "Exact up to round-off for optimizers. Bands of flows: the flow's own error, carried"
            " over to first order."
        )
    return "It jumps, so that the error of a flow gives it no error bar."


def _carry_out(work: Work, part: str, trajectory: Trajectory, names: list[str]) -> None:
    time = np.asarray(trajectory.times)
    bare = eqx.tree_at(lambda t: t.observables, trajectory, {})
    wanted = {name: OBSERVABLES[name].observable for name in names}
    found = observe(bare, None, **wanted).observables
    columns, gradients = {}, 0
    for name in names:
        named = OBSERVABLES[name]
        columns[name] = np.asarray(found[name], float)
        gradients += named.gradients * len(time)
        if named.smooth and trajectory.error is not None:
            columns[f"{name}_error"] = _steepness(trajectory, named) * np.asarray(trajectory.error)
            # Of an observable that takes gradients, the derivative is a Hessian-vector product.
            gradients += 3 * named.gradients * len(time)
    cost = Cost(gradients, solver="as recorded")
    work.store.add(f"observables/{part}", time, columns, str(time.dtype), cost.attributes)


def _steepness(trajectory: Trajectory, named: NamedObservable) -> np.ndarray:
    """The norm of the observable's gradient at every saved time."""

    @jit
    def steep(objective, params):
        return tree_norm(jax.grad(lambda p: named.observable(objective, p))(params))

    return np.asarray(
        jnp.stack([steep(trajectory.objective, params) for params in trajectory])  # pyright: ignore
    )


def _line(part: Member, seen: Member, name: str, results: Results) -> Line:
    value, error = seen.array(name), seen.array(f"{name}_error")
    known = error.size > 0
    return Line(
        part.label,
        seen.numbers("time"),
        value.tolist(),
        colour_of(part, results),
        (value - error).tolist() if known else None,
        (value + error).tolist() if known else None,
        quiet=part in results.flows,
        outside=outside(part),
    )
