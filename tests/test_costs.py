"""What stages cost: the report against the store, and the store against the library."""

import dataclasses
import html
import json
import re
import shutil

import pytest
import zarr

import thalweg as tw
from thalweg.kernels import _empirical
from thalweg.results import Stats
from thalweg.study._cost import Cost
from thalweg.study.build import build
from thalweg.study.declare import parse_spec
from thalweg.study.report._tables import cost_table
from thalweg.study.results import read_results
from thalweg.study.store import Store

from .studies import TINY, WILD, farthest, rewrite_attributes

# What a row is called, by the kind of the group that it is about.
_TITLES = {
    "flows": "",
    "optimizers": "",
    "observables": "observables, ",
    "laws": "law, ",
    "certificates": "certificate, ",
    "comparisons": "comparison, ",
    "curvature": "curvature, ",
    "kernel": "kernel drift, ",
}


def shown(directory):
    """The table, from the page: cells by the name of the row."""
    page = (directory / "report.html").read_text()
    table = page.partition("What it cost</h3>")[2].partition("</table>")[0]
    rows = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:])
    return {html.unescape(name): cells for name, *cells in rows}


def stored(directory):
    """The attributes of every stage, read by zarr alone: by the name of their row."""
    root = zarr.open_group(directory / "study.zarr", mode="r")
    labels = {
        name: str(group.attrs["label"])
        for kind, parent in root.groups()
        if kind in ("optimizers", "flows")
        for name, group in parent.groups()
    }
    # Two that share a label are told apart by their names.
    unique = {
        n: t if list(labels.values()).count(t) == 1 else f"{t} ({n})" for n, t in labels.items()
    }
    found = {
        f"{_TITLES[kind]}{unique[name]}": dict(group.attrs)
        for kind, parent in root.groups()
        if kind in _TITLES
        for name, group in parent.groups()
    }
    assert "gradients" in root["kernel"].attrs
    return found | {"kernel at the start": dict(root["kernel"].attrs)}


@pytest.mark.parametrize("which", ["finished", "diverged"])
def test_every_row_is_what_the_store_holds(which, finished, diverged):
    directory = {"finished": finished, "diverged": diverged}[which]
    table, groups = shown(directory), stored(directory)
    assert table.keys() == groups.keys() | {"everything"}
    total = 0
    for name, attributes in groups.items():
        method, *counts, seconds, ended = table[name]
        assert method == attributes["solver"], name
        gradients, error, products, altogether, steps, rejected = (
            int(count.replace(",", "")) for count in counts
        )
        assert (gradients, error, products, steps, rejected) == tuple(
            attributes[key]
            for key in ("gradients", "error_gradients", "products", "steps", "rejected")
        ), name
        assert altogether == gradients + error + 2 * products
        assert ended == ("diverged" if "too-large" in name and "," not in name else "completed")
        # Flows, runs and laws note how long they took.
        alone = ", " not in name and name != "kernel at the start"
        noted = alone or name.startswith("law, ")
        assert bool(seconds) == noted, name
        total += altogether
    assert table["everything"][4] == f"{total:,}"


def test_the_store_holds_what_the_library_counts(finished):
    plan, groups = build(parse_spec(TINY)), stored(finished)
    run = plan.runs[0]
    law = tw.predicted_distance(
        run.optimizer,
        plan.objective,
        plan.params,
        save_at=run.save_steps * run.optimizer.time_per_step,
        rtol=1e-5,
    )
    found = groups["law, gradient descent"]
    assert (found["gradients"], found["error_gradients"]) == (
        law.stats.gradients,
        law.stats.error_gradients,
    )
    assert found["gradients"] % 3 == 0, "a gradient and a Hessian product for each evaluation"
    assert groups["law, heavy ball"]["gradients"] % 2 == 0
    descent = tw.descend(run.optimizer, plan.objective, plan.params, 20)
    useful = farthest(descent, run.save_steps)
    certificate = tw.certify_run(plan.objective, descent, looks=8, useful=useful)
    assert groups["certificate, gradient descent"]["gradients"] == certificate.gradients
    assert groups["gradient descent"]["gradients"] == descent.stats.gradients == 20
    for name in ("gradient flow", "gradient descent", "heavy ball"):
        products = (
            read_results(Store.open(finished))
            .of("curvature")[name.replace(" ", "_")]
            .numbers("products")
        )
        seen = groups[f"curvature, {name}"]
        assert (seen["products"], seen["gradients"]) == (sum(products), len(products))


def test_the_price_of_a_kernel_is_what_it_makes(monkeypatch):
    """Counted are the samples of which Jacobians are made, whole and in blocks."""
    plan = build(parse_spec(WILD))
    kernel = tw.kernels.empirical(plan.objective, plan.params)
    made, original = [0], _empirical.factors

    def factors(params, objective, inputs):
        made[0] += len(inputs)
        return original(params, objective, inputs)

    monkeypatch.setattr(_empirical, "factors", factors)
    for size in (15, 8, 4):
        monkeypatch.setattr(type(kernel), "_block_size", lambda *_, size=size: size)
        made[0] = 0
        kernel.matrix("mean")
        # One output; a gradient of the objective is as much as the Jacobians of 15 samples.
        assert kernel.price("mean") == -(-made[0] // 15)
    drift = tw.kernels.KernelDrift(5)
    assert drift.price(plan.objective, plan.params) == pytest.approx(5 / 15)


def test_costs_that_are_not_known_stay_so():
    cost = Cost.of_run(Stats(-1, 12, 3, 0, "foreign"), price=3)
    assert (cost.gradients, cost.error_gradients, cost.total) == (-1, 36, -1)
    assert Cost.recorded(json.loads(json.dumps(cost.attributes))) == cost
    assert Cost.recorded({"rows": 3}) is None


def test_an_unfinished_study_has_no_total(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    # As the store is before a stage has come to its end.
    spent = [field.name for field in dataclasses.fields(Cost)]
    stage = tmp_path / "copy" / "study.zarr" / "curvature" / "gradient_flow"
    rewrite_attributes(stage, "complete", *spent)
    table = {row[0]: row for row in cost_table(read_results(Store.open(tmp_path / "copy"))).rows}
    assert table["curvature, gradient flow"] == [
        "curvature, gradient flow",
        *["unknown"] * 7,
        "",
        "under way",
    ]
    assert table["everything"][5] == "unknown"
    assert table["gradient flow"][-1] == "completed"
