"""What a study found, in words with numbers, from its store alone."""

import dataclasses
import json
from typing import Any, Literal

import numpy as np

from .._numbers import percent, significant, with_error
from ..closeness._evidence import Hypothesis
from .store import Store

# Fractions of the distance that the flow travels.
CLOSE = 0.01
LEFT = 0.05
# The kernel's movement, as a fraction of itself, up to which a run is lazy.
LAZY = 0.1
# Sharpness x step size, as a fraction of the stability limit, between which a run is at the edge.
EDGE = (0.95, 1.05)

Level = Literal["good", "notice", "warning"]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One finding: words, how good the news is, and the numbers in it."""

    text: str
    level: Level
    numbers: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def verdict(store: Store) -> list[Sentence]:
    """The findings of a study, the most important ones first."""
    sentences = []
    for name in store.members("optimizers"):
        sentences.append(_closeness(store, name))
        sentences += _prediction(store, name)
        sentences += _certificate(store, name)
        sentences += _kernel(store, name)
        sentences += _stability(store, name)
    sentences += [_flow_error(store, name) for name in store.members("flows")]
    if "gradient_flow" in store.members("curvature"):
        sentences.append(_negative_curvature(store, "gradient_flow"))
    return sentences


def _described(store: Store, name: str) -> str:
    attributes = store.attributes_of(f"optimizers/{name}")
    label = str(attributes["label"])
    given = f"{label} ({name})" if name != label.replace(" ", "_").lower() else label
    return f"{given[0].upper()}{given[1:]} with step {_number(attributes['step_size'])}"


def _number(value: Any) -> str:
    return f"{float(value):g}"


def _flow_label(store: Store, optimizer: str) -> str:
    flow = store.attribute(f"optimizers/{optimizer}", "flow")
    return str(store.attribute(f"flows/{flow}", "label"))


def _closeness(store: Store, name: str) -> Sentence:
    who, flow = _described(store, name), _flow_label(store, name)
    attributes = store.attributes_of(f"optimizers/{name}")
    gap = {
        key: store.read(f"comparisons/{name}", key)
        for key in ("time", "distance", "distance_error", "moved")
    }
    travelled = float(gap["moved"].max())
    ending = ""
    if attributes["status_kind"] != "completed":
        step = attributes.get("status_step")
        ending = f" It diverged at step {step}." if step else " It did not reach the end."
    if travelled == 0 or len(gap["time"]) < 2:
        return Sentence(f"{who}: nothing to compare with the {flow}.{ending}", "warning", {})
    fraction, bar = gap["distance"] / travelled, gap["distance_error"] / travelled
    worst = int(np.argmax(fraction))
    end = float(gap["time"][-1])
    numbers = {
        "largest_fraction": float(fraction[worst]),
        "error": float(bar.max()),
        "time": float(gap["time"][worst]),
        "until": end,
    }
    left = np.flatnonzero(fraction - bar > LEFT)
    if left.size:
        t = float(gap["time"][left[0]])
        numbers["left_at"] = t
        text = (
            f"{who} leaves its flow (the {flow}) at t = {significant(t)}: it is then more than"
            f" {percent(LEFT)} of the {significant(travelled)} that the flow travels away,"
            f" {percent(fraction[worst])} at worst."
        )
        return Sentence(text + ending, "warning", numbers)
    if not np.isfinite(bar[worst]) or bar[worst] > fraction[worst]:
        text = (
            f"{who} cannot be told from its flow (the {flow}) up to t = {significant(end)}: the"
            f" distance is below the flow's own error, {percent(bar.max())} of the"
            f" {significant(travelled)} that the flow travels."
        )
        return Sentence(text + ending, "notice", numbers)
    text = (
        f"{who} stays within {percent(fraction[worst])} of its flow (the {flow}) up to"
        f" t = {significant(end)}, as a fraction of the {significant(travelled)} that the flow"
        f" travels; the flow's own error is at most {percent(bar.max())}."
    )
    level: Level = "good" if fraction[worst] <= CLOSE else "notice"
    return Sentence(text + ending, "warning" if ending else level, numbers)


def _prediction(store: Store, name: str) -> list[Sentence]:
    """What the law says of the distance at the end."""
    if "predicted" not in store.columns(f"comparisons/{name}"):
        return []
    who = _described(store, name)
    measured, predicted = (
        store.read(f"comparisons/{name}", key) for key in ("distance", "predicted")
    )
    if len(measured) < 2 or not np.isfinite(predicted[-1]):
        return []
    numbers = {"measured": float(measured[-1]), "predicted": float(predicted[-1])}
    ratio = numbers["measured"] / numbers["predicted"] if numbers["predicted"] > 0 else np.inf
    text = (
        f"{who}: the first-order law predicts a distance of {significant(numbers['predicted'])} at"
        f" the end, and {significant(numbers['measured'])} was measured."
    )
    level: Level = "good"
    if not 0.8 <= ratio <= 1.25:
        level = "notice"
        text += " The law is for short steps; here higher orders of the step take part."
    return [Sentence(text, level, numbers)]


def _certificate(store: Store, name: str) -> list[Sentence]:
    """Up to when a bound on the distance says something, and how large it is then."""
    path, gap = f"certificates/{name}", f"comparisons/{name}"
    if not store.has(path):
        return []
    who, limit = _described(store, name), store.attribute(path, "limit")
    time, bound = store.read(path, "time"), store.read(path, "bound")
    measured, error = store.read(gap, "distance"), store.read(gap, "distance_error")
    moved = store.read(gap, "moved")
    travelled = float(np.max(moved[np.isfinite(moved)], initial=0.0))
    # A bound says something while it is below what the flow travels.
    telling = bound <= travelled
    last = len(bound) - 1 if telling.all() else int(np.argmin(telling)) - 1
    if last < 1:
        text = (
            f"{who}: its certificate says nothing: at the first saved time after the start the"
            f" bound is already more than the {significant(travelled)} that the flow travels."
            f" {limit}"
        )
        return [Sentence(text, "notice", {"travelled": travelled})]
    numbers = {"bound": float(bound[last]), "time": float(time[last])}
    grounds = [Hypothesis(*h) for h in json.loads(store.attribute(path, "hypotheses"))]
    gaps = sorted({ground.how for ground in grounds if not ground.proved})
    known = len(measured) > last
    numbers |= {"measured": float(measured[last])} if known else {}
    rests = f"{' and '.join(gaps)}, so not proved" if gaps else "proved"
    text = (
        f"{who}: a certificate bounds its distance to the flow up to t = {significant(time[last])},"
        f" by {significant(bound[last])} there ({rests})"
    )
    text += f", where {significant(measured[last])} was measured." if known else "."
    shared = slice(0, min(last + 1, len(measured)))
    if np.any((measured - error)[shared] > bound[shared]):
        text += " It does not hold: more was measured."
        return [Sentence(text, "warning", numbers)]
    if last < len(bound) - 1:
        text += " After that, the bound is more than the flow travels."
    whole = not gaps and last == len(bound) - 1
    return [Sentence(f"{text} {limit}", "good" if whole else "notice", numbers)]


def _kernel(store: Store, name: str) -> list[Sentence]:
    """Whether the tangent kernel at the start predicts a run, and how the loss fell."""
    path = f"kernel/{name}"
    if not store.has(path):
        return []
    attributes = store.attributes_of(path)
    rows = len(store.read(path, "time"))
    loss = store.read(f"optimizers/{name}", "loss")[:rows]
    gap = np.abs(store.read(path, "predicted_loss") - loss) / loss[0]
    drift = float(store.read(path, "drift").max())
    who = _described(store, name)
    if attributes["status_kind"] == "diverged" or not np.isfinite(gap).any():
        text = f"{who}: with the tangent kernel of the start it would diverge."
        return [Sentence(f"{text} {attributes['status_message']}", "notice", {"drift": drift})]
    worst = float(np.nanmax(gap))
    regime = "lazy" if drift <= LAZY else "not lazy: the network learns features"
    text = (
        f"{who}: the tangent kernel at the start predicts its loss to within {percent(worst)} of"
        f" the loss at the start; the kernel itself moves by {percent(drift)} ({regime}). How the"
        f" loss fell: {attributes['rate']}."
    )
    level: Level = "good" if worst <= LEFT and drift <= LAZY else "notice"
    return [Sentence(text, level, {"gap": worst, "drift": drift})]


def _stability(store: Store, name: str) -> list[Sentence]:
    if name not in store.members("curvature"):
        return []
    who = _described(store, name)
    attributes = store.attributes_of(f"optimizers/{name}")
    step, limit = float(attributes["step_size"]), float(attributes["stability_limit"])  # pyright: ignore
    where = f"curvature/{name}"
    value = store.read(where, "largest")[:, 0] * step
    radius = store.read(where, "largest_residual")[:, 0] * step
    seen = np.isfinite(value)
    if not seen.any():
        return [Sentence(f"{who}: its sharpness is unknown.", "warning", {})]
    value, radius, time = value[seen], radius[seen], store.read(where, "time")[seen]
    top = int(np.argmax(value))
    numbers = {
        "sharpness_times_step": float(value[top]),
        "radius": float(radius[top]),
        "limit": limit,
        "time": float(time[top]),
        "at_end": float(value[-1]),
    }
    text = (
        f"{who}: sharpness × step = {with_error(float(value[top]), float(radius[top]))} at most, at"
        f" t = {significant(float(time[top]))}; the limit of stability is {significant(limit)}: "
    )
    low, high = (value[top] - radius[top]) / limit, (value[top] + radius[top]) / limit
    if high < EDGE[0]:
        return [Sentence(text + "stable.", "good", numbers)]
    if low > EDGE[1]:
        return [Sentence(text + "beyond it, unstable on a quadratic.", "warning", numbers)]
    return [Sentence(text + "at the edge.", "notice", numbers)]


def _flow_error(store: Store, name: str) -> Sentence:
    where = f"flows/{name}"
    attributes = store.attributes_of(where)
    rows = int(store.attribute(where, "rows"))
    label = str(attributes["label"])
    params, error = store.read(where, "params")[:rows], store.read(where, "error")[:rows]
    moved = float(np.linalg.norm(params - params[:1], axis=1).max())
    worst = float(error.max())
    numbers = {"error": worst, "moved": moved}
    text = (
        f"The {label} itself is known to within {significant(worst, 2)}"
        f" ({percent(worst / moved)} of the {significant(moved)} it moves)"
        if moved > 0
        else f"The {label} does not move; its error is {significant(worst, 2)}"
    )
    kind = attributes["status_kind"]
    if kind != "completed":
        why = attributes["status_message"]
        what = why if kind == "uncontrolled" else f"it ended early: {why}"
        return Sentence(f"{text}; {what}", "warning", numbers)
    fine = moved > 0 and worst / moved < CLOSE
    return Sentence(text + ".", "good" if fine else "warning", numbers)


def _negative_curvature(store: Store, name: str) -> Sentence:
    where = f"curvature/{name}"
    value = store.read(where, "smallest")[:, 0]
    radius = store.read(where, "smallest_residual")[:, 0]
    time = store.read(where, "time")
    low = int(np.nanargmin(value))
    numbers = {
        "smallest": float(value[low]),
        "radius": float(radius[low]),
        "time": float(time[low]),
        "at_end": float(value[-1]),
    }
    text = (
        "The most negative curvature along gradient flow is"
        f" {with_error(float(value[low]), float(radius[low]))}, at t ="
        f" {significant(float(time[low]))}; at the end it is"
        f" {with_error(float(value[-1]), float(radius[-1]))}."
    )
    return Sentence(text, "notice", numbers)
