"""The stage that bounds how far gradient descent is from its flow."""

import json
from collections.abc import Iterator

import numpy as np

from ..._numbers import significant
from ..._trees import tree_norm, tree_sub
from ...closeness import ClosedForm, Intervals, certify_run
from ...closeness._evidence import Evidence, Hypothesis
from ...curvature._wanted import Wanted
from ...optimizers import GradientDescent
from ...results import Trajectory
from .._consistency import MOST_STEPS, Sections
from .._cost import Cost
from .._needs import PRODUCTS, READ, ROWS, WIDTHS, Need, Sizes, basis, need
from ..plan import Plan, PlannedRun
from ..results import Member, Results
from ..sentences import Sentence, who
from ..work import Work
from ._stage import Stage

# Stretches with a curvature of their own.
_LOOKS = 8
_METHODS = {ClosedForm: "norms of the weights", Intervals: "Lanczos, at points of a tube"}
# Bytes for every step under a certificate.
_CERTIFIED = 28


_TOPIC = "certificate"


class Certificates(Stage):
    """A bound on the distance at every saved step, for gradient descent on smooth networks."""

    name = "certificates"
    after = ("optimizers",)

    def carry_out(self, work: Work) -> None:
        plan = work.plan
        if not plan.spec.closeness.certify or plan.objective.kinks(plan.params).exist:
            return
        for planned in plan.runs:
            ended = work.store.attribute(f"optimizers/{planned.name}", "status_kind")
            wanted = isinstance(planned.optimizer, GradientDescent) and ended == "completed"
            if wanted and not work.store.complete(f"certificates/{planned.name}"):
                _carry_out(work, planned)

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        kinks = sections["network"].kinks
        if not sections.sound("flow", "closeness", "optimizers") or kinks:
            return
        flow = sections["flow"]
        steps = [
            (flow.t1 / optimizer.step_size, ("optimizers", i, "step_size"))
            for i, optimizer in sections.made()
            # More are refused anyway.
            if isinstance(optimizer, GradientDescent)
            and flow.t1 / optimizer.step_size <= MOST_STEPS
        ]
        if sections["closeness"].certify and steps:
            most_steps, key = max(steps)
            yield need(
                "certificates",
                (int(_CERTIFIED * most_steps), (key, ("flow", "t1"))),
                (READ * (flow.saves + 1) * sizes.vector, ROWS),
                (basis(Wanted(0, 1), sizes), WIDTHS),
                (sizes.product, PRODUCTS),
            )

    def says_of(self, run: Member, results: Results) -> Iterator[Sentence]:
        found, gap = results.part(self.name, run.name), results.part("comparisons", run.name)
        if found is not None and gap is not None:
            yield bounded(run, found, gap)

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        found = results.part(self.name, run.name)
        if found is None:
            return {"distance at most": "no certificate"}
        bound, proved = found.numbers("bound")[-1], found.attributes.get("proved")
        if not np.isfinite(bound):
            return {"distance at most": "no bound"}
        grounds = "proved" if proved else "not proved"
        return {"distance at most": f"{significant(bound)} ({grounds})"}

    def remarks(self, results: Results) -> Iterator[str]:
        for run in results.runs:
            found = results.part(self.name, run.name)
            if found is not None:
                grounds = json.loads(str(found.attributes.get("hypotheses", "[]")))
                rests = "; ".join(f"{statement} ({how})" for statement, how in grounds)
                limit = found.attributes.get("limit", "")
                yield f"The bound for {run.label} rests on: {rests}. {limit}"

    def titled(self, part: str) -> str:
        return f"certificate, {part}"


def _carry_out(work: Work, planned: PlannedRun) -> None:
    path, evidence = f"certificates/{planned.name}", _evidence(work.plan)
    run = work.run(planned)
    with work.progress.stage(f"certificate, {planned.name}", 1, "bounds") as bar:
        found = certify_run(
            work.plan.objective, run, evidence=evidence, looks=_LOOKS, useful=_travelled(run)
        )
        bar.at(1)
    attributes = {
        "optimizer": planned.name,
        "proved": found.proved,
        "hypotheses": json.dumps([[h.statement, h.how] for h in found.hypotheses]),
        "amplification": found.amplification,
        "limit": found.limit,
        **Cost(found.gradients, solver=_METHODS[type(evidence)]).attributes,
    }
    columns = {"bound": found.bound[np.asarray(run.steps)]}
    work.store.add(path, np.asarray(run.times), columns, str(run.loss.dtype), attributes)


def _travelled(run: Trajectory) -> float:
    """How far a run comes from its start; a larger bound says nothing."""
    return max(float(tree_norm(tree_sub(run[i], run.initial))) for i in range(len(run)))


def _evidence(plan: Plan) -> Evidence:
    """What can prove, where there is such, else intervals."""
    closed = ClosedForm()
    try:
        closed.check(plan.objective, plan.params)
    except (TypeError, ValueError):
        return Intervals()
    return closed


def bounded(run: Member, found: Member, gap: Member) -> Sentence:
    """Up to when a bound on the distance says something, and how large it is then."""
    limit = found.attributes["limit"]
    time, bound = found.array("time"), found.array("bound")
    measured, error, moved = (gap.array(c) for c in ("distance", "distance_error", "moved"))
    travelled = float(np.max(moved[np.isfinite(moved)], initial=0.0))
    # A bound says something while it is below what the flow travels.
    telling = bound <= travelled
    last = len(bound) - 1 if telling.all() else int(np.argmin(telling)) - 1
    if last < 1:
        text = (
            f"{who(run)}: its certificate says nothing: at the first saved time after the start the"
            f" bound is already more than the {significant(travelled)} that the flow travels."
            f" {limit}"
        )
        return Sentence(text, "notice", {"travelled": travelled}, _TOPIC, "says nothing")
    numbers = {"bound": float(bound[last]), "time": float(time[last])}
    grounds = [Hypothesis(*h) for h in json.loads(found.attributes["hypotheses"])]
    gaps = sorted({ground.how for ground in grounds if not ground.proved})
    known = len(measured) > last
    numbers |= {"measured": float(measured[last])} if known else {}
    rests = f"{' and '.join(gaps)}, so not proved" if gaps else "proved"
    text = (
        f"{who(run)}: a certificate bounds its distance to the flow up to"
        f" t = {significant(time[last])}, by {significant(bound[last])} there ({rests})"
    )
    text += f", where {significant(measured[last])} was measured." if known else "."
    shared = slice(0, min(last + 1, len(measured)))
    if np.any((measured - error)[shared] > bound[shared]):
        text += " It does not hold: more was measured."
        return Sentence(text, "warning", numbers, _TOPIC, "does not hold")
    if last < len(bound) - 1:
        text += " After that, the bound is more than the flow travels."
    whole = not gaps and last == len(bound) - 1
    short = f"at most {significant(bound[last])} to t = {significant(time[last])}"
    level = "good" if whole else "notice"
    return Sentence(f"{text} {limit}", level, numbers, _TOPIC, short)
