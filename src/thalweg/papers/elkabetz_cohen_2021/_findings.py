"""What the distances mean, in words: discretisation, round-off, or runs that parted at a kink."""

from ..._numbers import percent, significant
from ...study.sentences import Sentence
from ._comparison import FLOW, Comparison, shortening

# Distances in two precisions agree, so that neither is round-off.
_SAME = 0.25
# So much nearer to the flow are runs that stayed with it than one that left.
_TOGETHER = 0.1


def findings(comparisons: list[Comparison]) -> list[Sentence]:
    """One sentence about the distances of every network in every precision, one about each flow."""
    sentences = []
    by_key = {(c.network, c.precision): c for c in comparisons}
    for comparison in comparisons:
        other = by_key.get((comparison.network, "float64"))
        sentences.append(_cause(comparison, None if other is comparison else other))
        if comparison.own_flow:
            sentences.append(_flow(comparison))
    return sentences


def name(ratio: int) -> str:
    """`η/5`, `η` or `flow`."""
    return "flow" if ratio == FLOW else "η" if ratio == 1 else f"η/{ratio}"


def _cause(c: Comparison, exact: Comparison | None) -> Sentence:
    """Why eta and smaller steps are where they are. `exact`: the same in float64, unless c is."""
    first, *others = c.ratios
    found = ", ".join(significant(float(c.quotient(r)[-1])) for r in others)
    theory = ", ".join(significant(c.in_theory(r)) for r in others)
    test = (
        f"the distances to {_listed(others)} stand to that to {name(first)} as {found} (first order"
        f" in the step: {theory})"
    )
    end = {r: float(c.distance[r][-1]) for r in c.ratios}
    numbers = {name(r): d for r, d in end.items()}
    if c.of_first_order is None:
        bar = float(c.flow_error[-1])
        text = (
            f"{_title(c)}: it cannot be told. At the end {test}, but the flow is known only to"
            f" within {significant(bar, 2)}; more ratios would tell."
        )
        return Sentence(text, "notice", numbers)
    if c.of_first_order:
        text = f"{_title(c)}: discretisation. At the end {test}."
        return Sentence(text, "good", numbers)
    if c.torn:
        text = f"{_title(c)}: not of first order. At the end {test}."
        return Sentence(text + _other_precision(c, exact) + _where(c), "warning", numbers)
    worst = _parted(c)
    if exact is not None and exact.of_first_order and worst in exact.distance:
        text = (
            f"{_title(c)}: round-off. At the end {test}. Between η and {name(worst)} there is"
            f" {significant(end[worst])}, in float64"
            f" {significant(float(exact.distance[worst][-1]))}: more steps make more of it, so that"
            " the run with the smallest step is the least exact."
        )
        return Sentence(text, "notice", numbers)
    unknown = exact is None and c.precision == "float32"
    cause = "round-off, or long steps: float64 tells" if unknown else "beyond first order"
    return Sentence(f"{_title(c)}: {cause}. At the end {test}.", "notice", numbers)


def _other_precision(c: Comparison, exact: Comparison | None) -> str:
    if exact is None:
        return ""
    if _same(c, exact):
        return " It is not round-off either: the distances are those of float64."
    return " They are not those of float64: on which side a kink is passed, rounding decides too."


def _where(c: Comparison) -> str:
    """At which kink the run farthest from that of eta parted from it, and who parted from whom."""
    ratio = _parted(c)
    parting = c.parting.get(ratio)
    if parting is None:
        return " Along kinks, runs with different steps hop differently."
    ours, theirs = parting.depths
    spread = max(float(gap[-1]) for gap in c.proxy.values())
    alone = (
        f" It is η that left: the smaller steps are within {significant(spread)} of the flow."
        if spread < _TOGETHER * c.distance[FLOW][-1]
        else ""
    )
    return alone + (
        f" η and {name(ratio)} part at a kink: from iteration {c.iterations[parting.look]:.0f} on"
        f" unit {parting.unit} of layer {parting.layer} sees sample {parting.sample} from different"
        f" sides, and both runs are led away from the kink (by iteration"
        f" {c.iterations[parting.deepest]:.0f} the unit's input is {significant(ours, 2)} and"
        f" {significant(theirs, 2)}). On which side a run passes is not of any order in the step."
    )


def _parted(c: Comparison) -> int:
    """The smaller step whose run is farthest from that of eta, for its step."""
    return max((r for r in c.ratios if r != FLOW), key=lambda r: c.distance[r][-1] / shortening(r))


def _flow(c: Comparison) -> Sentence:
    proxy = c.ratios[-2]
    gap, bar = float(c.proxy[proxy][-1]), float(c.flow_error[-1])
    travelled = float(c.travelled[-1])
    cost = c.gradients[FLOW] + c.flow_error_gradients
    text = (
        f"{_title(c)}: the flow is known to within {significant(bar, 2)}"
        f" ({percent(bar / travelled)} of the distance travelled) at {cost:,} gradients,"
        f" {c.flow_error_gradients:,} of them for that error; {name(proxy)}, its proxy, is"
        f" {significant(gap)} from it at {c.gradients[proxy]:,} gradients."
    )
    return Sentence(text, "good" if bar < gap else "notice", {"error": bar, "proxy": gap})


def _same(c: Comparison, exact: Comparison) -> bool:
    shared = [r for r in c.ratios if r != FLOW and r in exact.distance]
    ends = [(float(c.distance[r][-1]), float(exact.distance[r][-1])) for r in shared]
    return all(abs(a - b) <= _SAME * max(a, b) for a, b in ends)


def _title(c: Comparison) -> str:
    return f"{c.network}, {c.precision}"


def _listed(ratios: list[int]) -> str:
    names = [("the flow" if r == FLOW else name(r)) for r in ratios]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
