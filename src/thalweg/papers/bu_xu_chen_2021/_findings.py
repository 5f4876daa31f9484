"""What the runs show, in words: against the published numbers, and against the theory."""

import math

import numpy as np

from ..._numbers import percent, significant, with_error
from ...kernels import Rate
from ...study.sentences import LAZY, Sentence
from ._curves import Curve, Group

# Largest difference from a prediction, as a part of the error at the start, that counts as held.
_HOLDS = 0.02
# A factor between our losses and published ones, of another start, that counts as the same.
_SAME = 1.5
# What a slope over widths may differ by from -1/2.
_SLOPE = 0.15


def findings(groups: list[Group]) -> list[Sentence]:
    """A few sentences for each experiment in each setting."""
    sentences = []
    for group in groups:
        sentences += [s for s in (_against_published(group), _minima(group)) if s]
        if group.setting.has_limit:
            sentences += [s for s in (_predicted(group), _by_width(group)) if s]
        else:
            sentences += [s for s in (_unpredicted(group),) if s]
        sentences += _laws(group)
        sentences += [_ended(group, c) for c in group.curves if c.trouble]
    return sentences


def _title(group: Group) -> str:
    return f"{group.title}, {group.setting.name} setting"


def _against_published(group: Group) -> Sentence | None:
    """How near our losses are to the paper's, of other starts."""
    pairs = []
    for curve in group.curves:
        for epoch in curve.epochs:
            theirs, ours = curve.published(int(epoch)), curve.at(int(epoch))
            if theirs is not None and ours is not None:
                pairs.append((ours / theirs[0], theirs[1] <= ours <= theirs[2], theirs))
    if not pairs:
        return None
    ratios = np.array([p[0] for p in pairs])
    close = float(np.mean(np.abs(np.log(ratios)) <= math.log(_SAME)))
    low, middle, high = (significant(float(f(ratios)), 2) for f in (np.min, np.median, np.max))
    text = (
        f"{_title(group)}: our losses are {low} to {high} times the published ones, {middle} times"
        f" in the median of {len(pairs)}"
    )
    ranges = [inside for _, inside, theirs in pairs if theirs[1] < theirs[2]]
    if ranges:
        text += f"; {sum(ranges)} of {len(ranges)} lie between those of the ten published starts"
    return Sentence(
        f"{text}.", "good" if close > 0.8 else "notice", {"median": float(np.median(ratios))}
    )


def _minima(group: Group) -> Sentence | None:
    """At which width each method ends lowest."""
    if not group.by_width:
        return None
    parts, numbers = [], {}
    for label, curves in group.lines().items():
        curves = [c for c in curves if not c.trouble]
        if len(curves) < 3:
            continue
        lowest = min(curves, key=lambda c: c.loss[-1])
        numbers[label] = float(lowest.run.width)
        part = f"{lowest.run.width} ({label}"
        theirs = {c.run.width: c.published(c.run.epochs) for c in curves}
        known = {m: loss[0] for m, loss in theirs.items() if loss is not None}
        if len(known) == len(curves):
            part += f"; published {min(known, key=known.__getitem__)}"
        parts.append(f"{part})")
    if not parts:
        return None
    text = f"{_title(group)}: of the widths tried the loss ends lowest at {_listed(parts)}."
    return Sentence(text, "notice", numbers)


def _predicted(group: Group) -> Sentence | None:
    """Whether the frozen kernel says what happens."""
    if group.by_width:
        return None
    gaps = {c.run.method.label: c.gap for c in group.curves}
    width = group.curves[0].run.width
    worst = max(gap["start"] for gap in gaps.values())
    text = (
        f"{_title(group)}: over all epochs, the prediction error of width {width:,} is what the"
        f" kernel at the start says it is to within {percent(worst)} of the error at first ("
        + ", ".join(f"{label}: {percent(gap['start'])}" for label, gap in gaps.items())
        + "); the kernel of infinite width, to "
        + f"{percent(max(gap['limit'] for gap in gaps.values()))}. The kernel moved by"
        f" {percent(max(float(np.nanmax(c.drift)) for c in group.curves))} at most."
    )
    return Sentence(text, "good" if worst <= _HOLDS else "notice", {"gap": worst})


def _by_width(group: Group) -> Sentence | None:
    """How the difference from the prediction falls as the network grows."""
    if not group.by_width:
        return None
    slopes = {}
    for label, curves in group.lines().items():
        if len(curves) >= 3:
            widths = np.log([c.run.width for c in curves])
            gaps = np.log([c.gap["limit"] for c in curves])
            slopes[label] = _slope(widths, gaps)
    if not slopes:
        return None
    shares = [c.gap["start"] / c.gap["limit"] for c in group.curves]
    least, most = min(shares), max(shares)
    expected = all(abs(s + 0.5) <= max(_SLOPE, 2 * e) for s, e in slopes.values())
    text = (
        f"{_title(group)}: the difference from the prediction of infinite width goes with the width"
        " to the power "
        + _listed([f"{with_error(*s)} ({label})" for label, s in slopes.items()])
        + f"; −1/2 is what theory has. The kernel at the start is off by {significant(least, 2)} to"
        f" {significant(most, 2)} times as much, by its movement."
    )
    return Sentence(
        text, "good" if expected else "notice", {label: s for label, (s, _) in slopes.items()}
    )


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of a straight line through points, and its standard error."""
    (slope, offset), left = np.polyfit(x, y, 1), len(x) - 2
    rest = y - slope * x - offset
    return float(slope), float(np.sqrt(np.sum(rest**2) / left / np.sum((x - x.mean()) ** 2)))


def _unpredicted(group: Group) -> Sentence | None:
    """By how much the first steps are too long, and what that does."""
    if group.by_width:
        return None
    first = group.curves[0]
    peak = int(np.argmax(first.loss))
    drift = [float(np.nanmax(c.drift)) for c in group.curves]
    text = (
        f"{_title(group)}: at the start the step size is {significant(first.steepness)} times the"
        f" largest that is stable for {first.run.method.label}"
    )
    if peak > 0:
        text += (
            f"; its loss rises from {significant(first.loss[0])} to"
            f" {significant(first.loss[peak])} by epoch {first.epochs[peak]}"
        )
    text += (
        f". The tangent kernel moves by {percent(min(drift))} to {percent(max(drift))} of itself"
    )
    text += ": not the regime that the theorems are about." if max(drift) > LAZY else "."
    return Sentence(text, "notice", {"steepness": first.steepness})


def _laws(group: Group) -> list[Sentence]:
    """What the losses of each method did, and what theory has for it."""
    if group.by_width:
        return []
    parts = [f"{curve.run.method.label}: {law(curve.rate)}" for curve in group.curves]
    text = f"{_title(group)}: as measured from the losses, {'; '.join(parts)}."
    return [Sentence(text, "notice", {}), *_ends_of_the_law(group)]


def law(rate: Rate) -> str:
    """The law that losses followed, with the uncertainty of its exponent."""
    if rate.kind == "neither":
        return "neither linear nor sublinear" if rate.judged else "could not be judged"
    exponent = with_error(rate.exponent, rate.uncertainty)
    return f"exp(−({exponent}) t)" if rate.kind == "linear" else f"t^−({exponent})"


def _ends_of_the_law(group: Group) -> list[Sentence]:
    """Where Nesterov's method stops being sublinear."""
    if not group.setting.has_limit:
        return []
    found = {
        c.run.method.label: c.predicted_rate.crossover / c.optimizer.time_per_step
        for c in group.curves
        if c.predicted_rate.power > 0 and math.isfinite(c.predicted_rate.crossover)
    }
    if not found:
        return []
    text = (
        f"{_title(group)}: “sublinear” is the law of the limit of short steps. With these steps the"
        " slowest mode goes over to a linear rate after "
        + _listed([f"{significant(k)} epochs ({label})" for label, k in found.items()])
        + ", by the kernel at the start."
    )
    return [Sentence(text, "notice", found)]


def _ended(group: Group, curve: Curve) -> Sentence:
    """A run that did not come to its end."""
    text = f"{_title(group)}, {curve.run.method.label}, width {curve.run.width}: {curve.trouble}"
    return Sentence(text, "warning", {})


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
