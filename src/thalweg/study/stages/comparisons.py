"""The stage that compares every run with its flow."""

from collections.abc import Iterator

import numpy as np

from ..._numbers import percent, significant, with_error
from ...closeness import compare
from ...closeness._compare import PRICE
from .._consistency import Sections
from .._cost import Cost
from .._needs import PRODUCTS, READ, ROWS, Need, Sizes, need
from ..charts import Chart, Figure, Line
from ..lines import colour_of, outside, shown
from ..results import Member, Results
from ..sentences import CLOSE, LAWFUL, LEFT, Level, Sentence, who
from ..work import Work
from ._stage import Stage
from .laws import predicted_distances

# Copies of saved rows while two trajectories are compared.
_COMPARED = 6
_TOPIC = "distance to flow"
_MEASURED = (
    "flow time t",
    "distance to flow",
    "relative to distance travelled",
    "loss − flow's",
    "predictions apart",
)


class Comparisons(Stage):
    """Distances between runs and their flows, measured and predicted."""

    name = "comparisons"
    after = ("flows", "optimizers", "laws")

    def carry_out(self, work: Work) -> None:
        for planned in work.plan.runs:
            path, flow = f"comparisons/{planned.name}", work.plan.flow_of(planned)
            if flow is None or work.store.complete(path):
                continue
            gap = compare(work.run(planned), work.flow(flow))
            columns = {
                "distance": gap.distance,
                "distance_error": gap.error,
                "moved": gap.moved,
                "relative": gap.relative,
                "loss_difference": gap.loss_difference,
                "loss_error": gap.loss_error,
                "prediction_distance": gap.prediction_distance,
                "prediction_error": gap.prediction_error,
                **predicted_distances(work, planned, len(gap.times)),
            }
            cost = Cost(PRICE * len(gap.times), solver="Gauss-Newton power iteration")
            attributes = {"optimizer": planned.name, "flow": flow.name, **cost.attributes}
            dtype = str(gap.distance.dtype)
            work.store.add(path, np.asarray(gap.times), columns, dtype, attributes)

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        if not sections.sound("flow"):
            return
        rows = (sections["flow"].saves + 1) * sizes.vector
        # A flow is saved at the times of every optimizer that discretises it.
        copies = _COMPARED + READ * sections.most
        yield need("comparisons", (copies * rows, ROWS), (sizes.product, PRODUCTS))

    def says_of(self, run: Member, results: Results) -> Iterator[Sentence]:
        gap = results.part(self.name, run.name)
        if gap is not None:
            yield _closeness(run, gap, results)
            yield from _lawfulness(run, gap)
        elif results.flow_of(run) is None and "flow" not in run.attributes:
            yield _alone(run)

    def draws(self, results: Results) -> Iterator[Figure]:
        chart = _distances(results, "Distance to the flow", "distance to the flow", relative=False)
        for run in results.runs:
            gap = results.part("comparisons", run.name)
            bound = results.part("certificates", run.name)
            for what, part, column, beyond in (
                ("predicted", gap, "predicted", outside(run)),
                ("certified bound", bound, "bound", True),
            ):
                if part is not None and (points := shown(part, column)):
                    time, value = (list(row) for row in zip(*points, strict=True))
                    name = f"{what}, {run.label}"
                    chart.lines.append(
                        Line(name, time, value, colour_of(run, results), quiet=True, outside=beyond)
                    )
        yield Figure(
            chart,
            "Euclidean distance over all parameters between each optimizer and its flow at the same"
            " time. Bands: plus and minus the flow's own estimated error; where a band reaches the"
            " floor of the chart, the distance is not known to differ from zero. Faint: what the"
            " first-order law predicts from the flow and its curvature, and, for gradient descent,"
            " a bound on the distance.",
        )
        yield Figure(
            _distances(
                results,
                "Relative distance to the flow",
                "distance / distance travelled",
                relative=True,
            ),
            "The same, divided by the distance that the flow travels up to the end (the farthest"
            " that it comes from its starting point). The verdict goes by this number: within 1 %"
            " is close, beyond 5 % a run has left its flow.",
        )

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        gap = results.part(self.name, run.name)
        if gap is None:
            return dict.fromkeys(_MEASURED, "not compared")
        last = {str(name): gap.numbers(str(name))[-1] for name in gap.data.data_vars}
        travelled = max(gap.numbers("moved"))
        values = (
            significant(gap.numbers("time")[-1]),
            with_error(last["distance"], last["distance_error"]),
            percent(last["distance"] / travelled) if travelled > 0 else "flow does not move",
            with_error(last["loss_difference"], last["loss_error"]),
            with_error(last["prediction_distance"], last["prediction_error"]),
        )
        cells: dict[str, str] = dict(zip(_MEASURED, values, strict=True))
        cells["distance predicted"] = "no law for kinks or not asked for"
        if np.isfinite(last.get("predicted", np.nan)):
            cells["distance predicted"] = with_error(last["predicted"], last["predicted_error"])
        return cells

    def titled(self, part: str) -> str:
        return f"comparison, {part}"


def _ending(run: Member) -> str:
    if run.attributes["status_kind"] == "completed":
        return ""
    step = run.attributes.get("status_step")
    return f" It diverged at step {step}." if step else " It did not reach the end."


def _short(run: Member, otherwise: str) -> str:
    """In a few words: that a run diverged, else how far it is from its flow."""
    kind, step = run.attributes["status_kind"], run.attributes.get("status_step")
    return f"diverged at step {step}" if kind == "diverged" and step else otherwise


def _alone(run: Member) -> Sentence:
    """A run that cannot be compared."""
    text = f"{who(run)}: no flow is known that it discretises, so it is compared with none."
    ending = _ending(run)
    short = _short(run, "compared with no flow")
    return Sentence(text + ending, "warning" if ending else "notice", {}, _TOPIC, short)


def _closeness(run: Member, gap: Member, results: Results) -> Sentence:
    flow, ending, time = results.flow_of(run), _ending(run), gap.array("time")
    label = "flow" if flow is None else flow.attributes["label"]
    travelled = float(gap.array("moved").max())
    if travelled == 0 or len(time) < 2:
        text = f"{who(run)}: nothing to compare with the {label}."
        return Sentence(text + ending, "warning", {}, _TOPIC, _short(run, "not compared"))
    fraction, bar = gap.array("distance") / travelled, gap.array("distance_error") / travelled
    worst, end = int(np.argmax(fraction)), float(time[-1])
    numbers = {
        "largest_fraction": float(fraction[worst]),
        "error": float(bar.max()),
        "time": float(time[worst]),
        "until": end,
    }
    left = np.flatnonzero(fraction - bar > LEFT)
    if left.size:
        t = float(time[left[0]])
        numbers["left_at"] = t
        text = (
            f"{who(run)} leaves its flow (the {label}) at t = {significant(t)}: it is then more"
            f" than {percent(LEFT)} of the {significant(travelled)} that the flow travels away,"
            f" {percent(fraction[worst])} at worst."
        )
        short = _short(run, f"leaves its flow at t = {significant(t)}")
        return Sentence(text + ending, "warning", numbers, _TOPIC, short)
    if not np.isfinite(bar[worst]) or bar[worst] > fraction[worst]:
        text = (
            f"{who(run)} cannot be told from its flow (the {label}) up to t = {significant(end)}:"
            f" the distance is below the flow's own error, {percent(bar.max())} of the"
            f" {significant(travelled)} that the flow travels."
        )
        short = _short(run, "cannot be told from its flow")
        return Sentence(text + ending, "notice", numbers, _TOPIC, short)
    text = (
        f"{who(run)} stays within {percent(fraction[worst])} of its flow (the {label}) up to"
        f" t = {significant(end)}, as a fraction of the {significant(travelled)} that the flow"
        f" travels; the flow's own error is at most {percent(bar.max())}."
    )
    level: Level = "good" if fraction[worst] <= CLOSE else "notice"
    short = _short(run, f"within {percent(fraction[worst])} of its flow")
    return Sentence(text + ending, "warning" if ending else level, numbers, _TOPIC, short)


def _lawfulness(run: Member, gap: Member) -> Iterator[Sentence]:
    """What the law says of the distance at the end."""
    measured, predicted = gap.array("distance"), gap.array("predicted")
    if not predicted.size or len(measured) < 2 or not np.isfinite(predicted[-1]):
        return
    numbers = {"measured": float(measured[-1]), "predicted": float(predicted[-1])}
    ratio = numbers["measured"] / numbers["predicted"] if numbers["predicted"] > 0 else np.inf
    text = (
        f"{who(run)}: the first-order law predicts a distance of"
        f" {significant(numbers['predicted'])} at the end, and"
        f" {significant(numbers['measured'])} was measured."
    )
    short = f"measured {significant(ratio, 2)} × predicted"
    if LAWFUL[0] <= ratio <= LAWFUL[1]:
        yield Sentence(text, "good", numbers, "first-order law", short)
    else:
        text += " The law is for short steps; here higher orders of the step take part."
        yield Sentence(text, "notice", numbers, "first-order law", short)


def _distances(results: Results, title: str, label: str, relative: bool) -> Chart:
    lines = []
    for run in results.runs:
        gap = results.part("comparisons", run.name)
        if gap is None:
            continue
        time, distance = gap.array("time"), gap.array("distance")
        error, moved = gap.array("distance_error"), gap.array("moved")
        scale = np.full_like(moved, moved.max(initial=0) if relative else 1)
        keep = (distance > 0) & np.isfinite(distance / scale) & (moved > 0)
        low, high = (distance - error) / scale, (distance + error) / scale
        lines.append(
            Line(
                run.label,
                time[keep].tolist(),
                (distance / scale)[keep].tolist(),
                colour_of(run, results),
                low[keep].tolist(),
                high[keep].tolist(),
                outside=outside(run),
            )
        )
    return Chart(title, "flow time t", label, lines, log_y=True)
