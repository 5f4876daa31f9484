"""The stage that measures the Hessian's extreme eigenvalues along flows and runs."""

from collections.abc import Iterator
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from pydantic import Field

from ..._numbers import significant, with_error
from ..._precision import jit
from ..._section import Counted, Section
from ...curvature import ExtremeEigenvalues
from ...curvature._wanted import Wanted
from ...datasets import DataShape
from ...observables import gradient_norm
from .._checkpoints import Checkpoints
from .._consistency import Sections
from .._cost import Cost
from .._errors import FieldError
from .._needs import PRODUCTS, ROWS, WIDTHS, Need, Sizes, basis, need
from ..charts import Chart, Figure, Level, Line
from ..lines import colour_of, outside
from ..plan import Plan
from ..results import Member, Results
from ..sentences import EDGE, Sentence, who
from ..work import Work
from ._stage import Stage

_TOPIC = "stability"
_MEASURED = ("largest eigenvalue", "largest eigenvalue × step", "smallest eigenvalue")


class CurvatureSection(Section):
    """`[curvature]`: Hessian eigenvalues along every flow and every run."""

    measure: bool = True
    largest: Annotated[int, Field(ge=1, le=50)] = 1
    smallest: Annotated[int, Field(ge=1, le=50)] = 1
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    max_products: Counted = 1000


class Curvature(Stage):
    """Eigenvalues with residuals at every saved time of all flows and runs."""

    name = "curvature"
    after = ("flows", "optimizers")

    def carry_out(self, work: Work) -> None:
        for source, title in _sources(work.plan):
            if not work.store.complete("curvature/" + source.split("/")[1]):
                _carry_out(work, source, f"curvature, {title}")

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        if not sections.sound("flow", "curvature") or not sections["curvature"].measure:
            return
        section, rows = sections["curvature"], (sections["flow"].saves + 1) * sizes.vector
        searched = basis(Wanted(section.largest, section.smallest), sizes)
        keys = (("curvature", "largest"), ("curvature", "smallest"), *WIDTHS)
        product = (sizes.product, PRODUCTS)
        yield need("curvature", (searched, keys), product, (sections.most * rows, ROWS))

    def misfits(self, sections: Sections, shape: DataShape, sizes: Sizes) -> Iterator[FieldError]:
        keys = ("measure", "largest", "smallest")
        if not sections.know(*(("curvature", key) for key in keys)):
            return
        section = sections["curvature"]
        wanted = section.largest + section.smallest
        if section.measure and wanted > sizes.parameters:
            message = f"{wanted} eigenvalues of a Hessian of {sizes.parameters} parameters."
            yield FieldError(("curvature",), message)

    def says_of(self, run: Member, results: Results) -> Iterator[Sentence]:
        seen, limit = results.part(self.name, run.name), run.attributes.get("stability_limit")
        if seen is not None and limit is not None:
            yield _stability(run, seen, float(limit))

    def says(self, results: Results) -> Iterator[Sentence]:
        seen = results.part(self.name, "gradient_flow")
        if seen is not None:
            yield _negative(seen)

    def draws(self, results: Results) -> Iterator[Figure]:
        lines = [line for run in results.runs for line in _share_of_limit(run, results)]
        yield Figure(
            Chart(
                "Sharpness × step, as a share of the limit of stability",
                "flow time t",
                "sharpness × step / limit",
                lines,
                [Level("unstable above, on a quadratic", 1.0)],
            ).with_log_where_it_helps(),
            "Largest eigenvalue of the Hessian along every run, times its step size, over the value"
            " above which its method is unstable on a quadratic. Bands: intervals that hold an"
            " eigenvalue.",
        )
        for end, title, more in (
            ("largest", "Largest eigenvalue of the Hessian", ""),
            ("smallest", "Smallest eigenvalue of the Hessian", " Below zero, nearby paths part."),
        ):
            lines = [
                _line(part, results.of(self.name)[part.name], end, results)
                for part in (*results.flows, *results.runs)
                if part.name in results.of(self.name)
            ]
            levels = [Level("", 0.0)] if end == "smallest" else []
            yield Figure(
                Chart(title, "flow time t", f"{end} eigenvalue", lines, levels),
                f"{title} along flows (faint) and runs, with the intervals that hold it.{more}",
            )

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        seen, step = results.part(self.name, run.name), run.attributes.get("step_size")
        if seen is None:
            return dict.fromkeys(_MEASURED, "not measured")
        top, radius = seen.first("largest")[-1], seen.first("largest_residual")[-1]
        low, low_radius = seen.first("smallest")[-1], seen.first("smallest_residual")[-1]
        scaled = "no limit is known" if step is None else with_error(top * step, radius * step)
        values = with_error(top, radius), scaled, with_error(low, low_radius)
        return dict(zip(_MEASURED, values, strict=True))

    def titled(self, part: str) -> str:
        return f"curvature, {part}"


def _sources(plan: Plan) -> Iterator[tuple[str, str]]:
    """The stored trajectories to look along, with titles."""
    if not plan.spec.curvature.measure:
        return
    for flow in plan.flows:
        yield f"flows/{flow.name}", flow.flow.name
    for run in plan.runs:
        yield f"optimizers/{run.name}", run.name


def _carry_out(work: Work, source: str, title: str) -> None:
    """Warm-started from the saved time before; what is carried on is the checkpoint."""
    path, plan, store = "curvature/" + source.split("/")[1], work.plan, work.store
    section = plan.spec.curvature
    search = ExtremeEigenvalues(
        largest=section.largest,
        smallest=section.smallest,
        tolerance=section.tolerance,
        max_products=section.max_products,
    )
    stored = work.rows(source)
    params, time = stored["params"], stored["time"]
    _, unravel = ravel_pytree(plan.params)
    columns = {
        "largest": (("rank", search.largest),),
        "largest_residual": (("rank", search.largest),),
        "smallest": (("low_rank", search.smallest),),
        "smallest_residual": (("low_rank", search.smallest),),
        "gradient_norm": (),
        "products": (),
    }
    attributes = {"source": source, "tolerance": section.tolerance}
    store.allocate(path, {"time": time}, columns, str(params.dtype), attributes)
    start = search.initial(plan.objective, plan.params)
    checkpoints = Checkpoints(store, path)
    carry, index = checkpoints.start(start)
    store.check(path, index)
    norm = jit(gradient_norm)
    with work.progress.stage(title, len(time)) as bar:
        bar.at(index)
        while index < len(time):
            point = unravel(jnp.asarray(params[index]))
            row = {"gradient_norm": norm(plan.objective, point)}
            # The last point of a diverged run may have no finite Hessian: its row stays empty.
            if np.isfinite(row["gradient_norm"]):
                found, carry = search(plan.objective, point, carry)
                row |= {
                    "largest": found.largest.value,
                    "largest_residual": found.largest.residual,
                    "smallest": found.smallest.value,
                    "smallest_residual": found.smallest.residual,
                    "products": found.products,
                }
            store.write_row(path, index, row)
            index += 1
            checkpoints.offer(carry, index)
            bar.at(index)
    # One gradient a row, for its norm.
    products = int(np.nansum(store.read(path, "products")))
    cost = Cost(len(time), products=products, solver="Lanczos")
    store.annotate(path, {**cost.attributes, "complete": True})


def _stability(run: Member, seen: Member, limit: float) -> Sentence:
    step = float(run.attributes["step_size"])
    value, radius = seen.first("largest") * step, seen.first("largest_residual") * step
    known = np.isfinite(value)
    if not known.any():
        text = f"{who(run)}: its sharpness is unknown."
        return Sentence(text, "warning", {}, _TOPIC, "sharpness unknown")
    value, radius, time = value[known], radius[known], seen.array("time")[known]
    top = int(np.argmax(value))
    numbers = {
        "sharpness_times_step": float(value[top]),
        "radius": float(radius[top]),
        "limit": limit,
        "time": float(time[top]),
        "at_end": float(value[-1]),
    }
    text = (
        f"{who(run)}: sharpness × step = {with_error(float(value[top]), float(radius[top]))} at"
        f" most, at t = {significant(float(time[top]))}; the limit of stability is"
        f" {significant(limit)}: "
    )
    low, high = (value[top] - radius[top]) / limit, (value[top] + radius[top]) / limit
    if high < EDGE[0]:
        return Sentence(text + "stable.", "good", numbers, _TOPIC, "stable")
    if low > EDGE[1]:
        text += "beyond it, unstable on a quadratic."
        return Sentence(text, "warning", numbers, _TOPIC, "beyond the limit of stability")
    return Sentence(text + "at the edge.", "notice", numbers, _TOPIC, "at the edge of stability")


def _negative(seen: Member) -> Sentence:
    value, radius = seen.first("smallest"), seen.first("smallest_residual")
    low = int(np.nanargmin(value))
    numbers = {
        "smallest": float(value[low]),
        "radius": float(radius[low]),
        "time": float(seen.array("time")[low]),
        "at_end": float(value[-1]),
    }
    text = (
        "The most negative curvature along gradient flow is"
        f" {with_error(float(value[low]), float(radius[low]))}, at t ="
        f" {significant(numbers['time'])}; at the end it is"
        f" {with_error(float(value[-1]), float(radius[-1]))}."
    )
    return Sentence(text, "notice", numbers)


def _share_of_limit(run: Member, results: Results) -> Iterator[Line]:
    """Nothing for a method whose limit is not known."""
    seen, limit = results.part("curvature", run.name), run.attributes.get("stability_limit")
    if seen is not None and limit is not None:
        scale = float(run.attributes["step_size"]) / float(limit)
        yield _line(run, seen, "largest", results, scale)


def _line(part: Member, seen: Member, end: str, results: Results, scale: float = 1.0) -> Line:
    value, radius = seen.first(end) * scale, seen.first(f"{end}_residual") * scale
    return Line(
        part.label,
        seen.numbers("time"),
        value.tolist(),
        colour_of(part, results),
        (value - radius).tolist(),
        (value + radius).tolist(),
        quiet=part in results.flows,
        outside=outside(part),
    )
