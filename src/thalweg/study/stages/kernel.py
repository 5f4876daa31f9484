"""The stage that asks what the tangent kernel at the start predicts, and how far it moves."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..._memory import in_words
from ..._numbers import percent, significant
from ..._section import Count, Section
from ...datasets import DataShape
from ...kernels import KernelDrift, Modes, empirical, modes, predicted_rate, rate
from ...kernels._empirical import MATRIX_MEMORY
from ...kernels._predicted_run import predicted_by
from ...kernels._prediction import Clock, Prediction
from ...observables import observe
from ...optimizers import ClassicalOptimizer
from .._consistency import Sections
from .._cost import Cost
from .._errors import FieldError
from .._needs import PRODUCTS, READ, ROWS, SAMPLES, Need, Sizes, need
from ..charts import Chart, Figure, Line, Table
from ..lines import colour_of, line_of, outside, shown
from ..plan import Plan, PlannedRun
from ..results import Member, Results
from ..sentences import LAZY, LEFT, Sentence, who
from ..work import Work
from ._stage import Spent, Stage

# Rows up to which a kernel is diagonalised without being asked to.
_ROWS = 3000
# Copies of a kernel's matrix while it is diagonalised, and of what it predicts at saved times.
_DIAGONALISED, _PREDICTED = 6, 4
# Copies of the small kernels whose distance is measured.
_DRIFT = 3
_KERNELS = {
    "all": "all pairs of outputs",
    "each": "every output with itself",
    "mean": "the mean over outputs, for all of them",
}
_NOT_PREDICTED = "not predicted"
_TOPIC = "tangent kernel"


class KernelSection(Section):
    """`[kernel]`: what the tangent kernel at the start predicts, and how far it moves."""

    predict: bool = True
    outputs: Literal["all", "each", "mean"] | None = None
    drift_samples: Count = 32

    def kind(self, samples: int, outputs: int) -> Literal["all", "each", "mean"] | None:
        """Which kernel is used: as asked for, else the largest that is quickly diagonalised."""
        if not self.predict or self.outputs is not None:
            return self.outputs if self.predict else None
        if samples * outputs <= _ROWS:
            return "all"
        return "mean" if samples <= _ROWS else None


class Kernel(Stage):
    """Predicted losses and the kernel's drift at every saved step of every run."""

    name = "kernel"
    after = ("optimizers",)

    def carry_out(self, work: Work) -> None:
        plan, store = work.plan, work.store
        outputs = kernel_outputs(plan)
        left = [run for run in plan.runs if not store.complete(f"kernel/{run.name}")]
        if outputs is None or not left:
            return
        with work.progress.stage("tangent kernel", 1 + len(left), "kernels and runs") as bar:
            kernel = empirical(plan.objective, plan.params)
            found = modes(kernel.matrix(outputs))
            store.require("kernel")
            made = Cost(kernel.price(outputs), solver="Jacobian, all eigenvalues")
            store.annotate("kernel", made.attributes)
            start = plan.objective.predictions(plan.params)
            bar.at(1)
            for i, planned in enumerate(left):
                _carry_out(work, planned, found, start, outputs)
                bar.at(2 + i)

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        if not sections.sound("flow", "kernel"):
            return
        saves, section = sections["flow"].saves + 1, sections["kernel"]
        kind = section.kind(sizes.samples, sizes.outputs)
        if kind is None:
            return
        predicted = saves * sizes.samples * sizes.outputs * sizes.itemsize
        some = min(section.drift_samples, sizes.samples) * sizes.outputs
        yield need(
            "the kernel",
            (_DIAGONALISED * _matrix(kind, sizes), (*SAMPLES, ("kernel", "outputs"))),
            (_PREDICTED * predicted, (("flow", "saves"), *SAMPLES)),
            (_DRIFT * some**2 * sizes.itemsize, (("kernel", "drift_samples"),)),
            (READ * saves * sizes.vector, ROWS),
            (sizes.product, PRODUCTS),
        )

    def misfits(self, sections: Sections, shape: DataShape, sizes: Sizes) -> Iterator[FieldError]:
        if not sections.sound("kernel"):
            return
        kind = sections["kernel"].kind(sizes.samples, sizes.outputs)
        matrix = _matrix(kind, sizes)
        if matrix > MATRIX_MEMORY:
            smaller = "" if kind == "mean" else ', take "mean",'
            yield FieldError(
                ("kernel", "outputs"),
                f"the matrix of {kind!r} has {in_words(matrix)}, more than the"
                f" {in_words(MATRIX_MEMORY)} that it may have; take fewer samples{smaller} or set"
                " `predict = false`",
            )

    def says_of(self, run: Member, results: Results) -> Iterator[Sentence]:
        seen = results.part(self.name, run.name)
        if seen is not None:
            yield _predicts(run, seen)

    def draws(self, results: Results) -> Iterator[Figure]:
        if not results.of(self.name):
            return
        lines, moved = [], []
        for run in results.runs:
            seen = results.part(self.name, run.name)
            if seen is None:
                continue
            colour, beyond = colour_of(run, results), outside(run)
            if points := shown(seen, "predicted_loss"):
                time, value = (list(column) for column in zip(*points, strict=True))
                name = f"predicted, {run.label}"
                lines += [
                    line_of(run, "loss", results),
                    Line(name, time, value, colour, quiet=True, outside=beyond),
                ]
            drift = seen.numbers("drift")
            moved.append(Line(run.label, seen.numbers("time"), drift, colour, outside=beyond))
        chart = Chart("Loss, and what the tangent kernel predicts", "flow time t", "loss", lines)
        yield Figure(
            chart.with_log_where_it_helps(),
            "Loss of every optimizer (strong) and what the tangent kernel at the start predicts for"
            " it, at its real step size and momentum (faint): exact if the kernel did not change.",
        )
        yield Figure(
            Chart("Drift of the tangent kernel", "flow time t", "|K − K₀| / |K₀|", moved),
            "How far the tangent kernel has moved from the start, in the Frobenius norm, on some of"
            " the samples. Small: the run is lazy, and the kernel predicts it; large: it learns"
            " features.",
        )

    def tables(self, results: Results) -> Iterator[tuple[str, Table, str]]:
        header = [
            "optimizer",
            "loss at the end",
            "predicted",
            "kernel moved",
            "how the loss fell",
            "in the long run, by theory",
        ]
        rows = [
            _row(run, seen)
            for run in results.runs
            if (seen := results.part(self.name, run.name)) is not None
        ]
        if rows:
            note = (
                f"{_which(results)} Predicted losses are exact for a kernel that does not change;"
                " how far it moved is in the table. The rate of a run is a verdict from its later"
                " three quarters of time, with its uncertainty; by theory: what the spectrum at the"
                " start leads to, if run for ever."
            )
            yield "Tangent kernel and rates", Table(header, rows), note

    def costs(self, results: Results) -> Iterator[Spent]:
        yield from super().costs(results)
        if self.name in results.costs:
            yield Spent("kernel at the start", results.costs[self.name], "completed")

    def titled(self, part: str) -> str:
        return f"kernel drift, {part}"

    def ended(self, part: Member) -> str:
        # The status of a kernel is that of what it predicts.
        return "completed" if part.complete else "under way"


def kernel_outputs(plan: Plan) -> Any:
    """Which kernel a study uses."""
    objective = plan.objective
    outputs = jax.eval_shape(objective.predictions, plan.params).size // objective.samples
    return plan.spec.kernel.kind(objective.samples, outputs)


def _matrix(kind: str | None, sizes: Sizes) -> int:
    """Bytes of a kernel."""
    copies = {"all": sizes.outputs**2, "each": sizes.outputs, "mean": 1, None: 0}[kind]
    return copies * sizes.samples**2 * sizes.itemsize


def _carry_out(work: Work, planned: PlannedRun, found: Modes, start: Any, outputs: str) -> None:
    plan, run = work.plan, work.run(planned)
    assert run.steps is not None
    steps = np.asarray(run.steps)
    predicted, ending, law = _predicted(plan, planned, found, start, steps)
    moved = KernelDrift(plan.spec.kernel.drift_samples)
    drift = observe(run, drift=moved).observables["drift"]
    # One more is that of the start.
    spent = math.ceil((len(steps) + 1) * moved.price(plan.objective, plan.params))
    # A prediction that diverged ends earlier.
    missing = np.full(len(steps) - len(predicted), np.nan)
    columns = {"predicted_loss": np.append(predicted, missing), "drift": np.asarray(drift)}
    measured = rate(run)
    attributes = {
        "optimizer": planned.name,
        "outputs": outputs,
        "condition": found.condition,
        "alignment": _alignment(plan, found),
        "status_kind": ending[0],
        "status_message": ending[1],
        "rate": str(measured),
        "rate_kind": measured.kind if measured.judged else "not judged",
        **law,
        **Cost(spent, solver="Jacobian").attributes,
    }
    time = np.asarray(run.times)
    work.store.add(f"kernel/{planned.name}", time, columns, str(time.dtype), attributes)


def _predicted(
    plan: Plan, planned: PlannedRun, found: Modes, start: Any, steps: np.ndarray
) -> tuple[np.ndarray, tuple[str, str], dict[str, Any]]:
    """The losses that the kernel predicts, how the prediction ended, and the law of the loss."""
    try:
        clock = Clock.of(planned.optimizer, steps, plan.params)
    except ValueError as error:
        if isinstance(planned.optimizer, ClassicalOptimizer):
            raise
        law = {"predicted_rate": "none is known for this method", "predicted_rate_kind": "unknown"}
        return np.empty(0), (_NOT_PREDICTED, str(error)), law
    predicted = predicted_by(clock, plan.objective, found, start, None, plan.spec.rtol)
    ending = predicted.status.kind, predicted.status.message
    return np.asarray(predicted.loss), ending, _law(planned, predicted)


def _law(planned: PlannedRun, predicted: Prediction) -> dict[str, Any]:
    """What theory has for the loss in the long run."""
    if not predicted.modal:
        return {"predicted_rate": "none is known for this loss", "predicted_rate_kind": "unknown"}
    if not isinstance(planned.optimizer, ClassicalOptimizer):
        return {"predicted_rate": "none is known for this method", "predicted_rate_kind": "unknown"}
    expected = predicted_rate(planned.optimizer, predicted)
    law = {"predicted_rate": str(expected), "predicted_rate_kind": expected.kind}
    finite = np.isfinite(expected.exponent)
    return law | {"predicted_exponent": expected.exponent} if finite else law


def _alignment(plan: Plan, found: Modes) -> float:
    """With the targets, as one-hot rows."""
    targets = plan.objective.targets
    if jnp.issubdtype(targets.dtype, jnp.integer):
        assert plan.classes is not None
        targets = jax.nn.one_hot(targets, plan.classes, dtype=found.vectors.dtype)
    return found.alignment(targets)


def _predicts(run: Member, seen: Member) -> Sentence:
    """Whether the tangent kernel at the start predicts a run, and how the loss fell."""
    attributes, drift = seen.attributes, float(seen.array("drift").max())
    loss = run.array("loss")[: len(seen.array("time"))]
    gap = np.abs(seen.array("predicted_loss") - loss) / loss[0]
    regime = "lazy" if drift <= LAZY else "not lazy: the network learns features"
    short = "lazy" if drift <= LAZY else f"learns features (kernel moves {percent(drift)})"
    moved = f"the kernel itself moves by {percent(drift)} ({regime})"
    fell = f"How the loss fell: {attributes['rate']}."
    if attributes["status_kind"] == _NOT_PREDICTED:
        text = f"{who(run)}: the tangent kernel predicts nothing for a method like this; {moved}."
        return Sentence(f"{text} {fell}", "notice", {"drift": drift}, _TOPIC, short)
    if attributes["status_kind"] == "diverged" or not np.isfinite(gap).any():
        text = f"{who(run)}: with the tangent kernel of the start it would diverge."
        text = f"{text} {attributes['status_message']}"
        short = "would diverge with its first kernel"
        return Sentence(text, "notice", {"drift": drift}, _TOPIC, short)
    worst = float(np.nanmax(gap))
    text = (
        f"{who(run)}: the tangent kernel at the start predicts its loss to within"
        f" {percent(worst)} of the loss at the start; {moved}. {fell}"
    )
    level = "good" if worst <= LEFT and drift <= LAZY else "notice"
    return Sentence(text, level, {"gap": worst, "drift": drift}, _TOPIC, short)


def _row(run: Member, seen: Member) -> list[str]:
    predicted, drift = seen.numbers("predicted_loss")[-1], seen.numbers("drift")[-1]
    kind = seen.attributes.get("status_kind")
    unknown = _NOT_PREDICTED if kind == _NOT_PREDICTED else "diverged"
    return [
        run.label,
        significant(run.numbers("loss")[-1], 6),
        significant(predicted, 6) if np.isfinite(predicted) else unknown,
        percent(drift),
        _fall(seen),
        _long_run(seen),
    ]


def _fall(seen: Member) -> str:
    """How the loss fell, without the reasons, which the verdict has."""
    rate, kind = str(seen.attributes.get("rate", "")), seen.attributes.get("rate_kind", "")
    return rate.partition(":")[0] if kind in ("neither", "not judged") else rate


def _long_run(seen: Member) -> str:
    """What the slowest mode will do, and how little of that is within a run too short for it."""
    law = str(seen.attributes.get("predicted_rate", ""))
    exponent = float(seen.attributes.get("predicted_exponent", np.nan))
    fallen = -np.expm1(-exponent * seen.numbers("time")[-1])
    short = 0 < fallen < 0.5
    return f"{law}; in this run that is a fall by {percent(fallen)}" if short else law


def _which(results: Results) -> str:
    """Which kernel it was."""
    found = next(iter(results.of("kernel").values())).attributes
    condition = float(found.get("condition", float("inf")))
    spread = f"{condition:.3g}" if condition < float("inf") else "infinite (singular kernel)"
    return (
        f"The kernel is that of {_KERNELS.get(str(found.get('outputs')), 'the network')} at the"
        f" start; its condition is {spread}, its alignment with the targets"
        f" {float(found.get('alignment', float('nan'))):.3g}."
    )
