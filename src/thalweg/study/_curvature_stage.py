"""The Hessian's extreme eigenvalues along every stored trajectory."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._precision import jit
from ..curvature import ExtremeEigenvalues
from ..observables import gradient_norm
from ._checkpoints import Checkpoints
from ._cost import Cost
from .build import Plan
from .progress import Progress
from .store import Store


def curvature_paths(plan: Plan) -> Iterator[tuple[str, str]]:
    """The stored trajectories to look along, with titles."""
    if not plan.spec.curvature.measure:
        return
    for flow in plan.flows:
        yield f"flows/{flow.name}", f"curvature, {flow.flow.name}"
    for run in plan.runs:
        yield f"optimizers/{run.name}", f"curvature, {run.name}"


def carry_out_curvature(
    plan: Plan, store: Store, progress: Progress, source: str, title: str
) -> None:
    """Eigenvalues with residuals at every saved time of one trajectory.

    Warm-started from the saved time before; what is carried on is the checkpoint.
    """
    path = "curvature/" + source.split("/")[1]
    if store.complete(path):
        return
    section = plan.spec.curvature
    search = ExtremeEigenvalues(
        largest=section.largest,
        smallest=section.smallest,
        tolerance=section.tolerance,
        max_products=section.max_products,
    )
    rows = int(store.attribute(source, "rows"))
    params = store.read(source, "params")[:rows]
    time = store.read(source, "time")[:rows]
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
    with progress.stage(title, rows) as bar:
        bar.at(index)
        while index < rows:
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
    cost = Cost(rows, products=products, solver="Lanczos")
    store.annotate(path, {**cost.attributes, "complete": True})
