"""What a study may declare: methods of optax, two momenta, residual networks, observables."""

import json

import jax
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg._section import OneOf
from thalweg.optimizers import OptimizerSection
from thalweg.study import SpecError, parse_spec, resume, run_study
from thalweg.study.build import build
from thalweg.study.declare import declared
from thalweg.study.results import read_results
from thalweg.study.run import _wanted
from thalweg.study.store import Store

SPEC = tw.study.Spec(
    data=tw.datasets.DigitsSection(samples=20),
    network=tw.networks.ResidualSection(width=3, blocks=2),
    flow=tw.study.FlowsSection(t1=0.5, saves=4, rtol=1e-5),
    optimizers=[
        tw.optimizers.OptaxSection(transformation="adam", arguments={"learning_rate": 0.01}),
        tw.optimizers.OptaxSection(
            name="sgd",
            transformation="sgd",
            arguments={"learning_rate": 0.004, "momentum": 0.5},
            time_per_step=0.02,
            flow=tw.flows.HeavyBallFlowSection(friction=1.0),
        ),
        tw.optimizers.HigherMomentumSection(step_size=0.01, first=0.5, second=0.2),
    ],
    observables=tw.study.ObservablesSection(record=["accuracy", "parameter_norm", "gradient_norm"]),
    closeness=tw.study.ClosenessSection(predict=False, certify=False),
    curvature=tw.study.CurvatureSection(measure=False),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a study that was declared in Python, carried out in part and then gone on with."""
    directory = tmp_path_factory.mktemp("declared")
    run_study(SPEC, directory, only=["optimizers"])
    assert set(read_results(Store.open(directory)).groups) == {"optimizers"}
    resume(directory)
    return read_results(Store.open(directory))


def runs_of(spec):
    plan = build(declared(spec))
    return plan, {run.name: run for run in plan.runs}


def test_runs_are_those_of_the_library(results):
    plan, runs = runs_of(SPEC)
    optimizers = {
        "adam": tw.Optax(optax.adam(0.01)),
        "sgd": tw.Optax(optax.sgd(0.004, momentum=0.5)),
        "higher_momentum": tw.HigherMomentum(0.01, 0.5, 0.2),
    }
    assert list(results.of("optimizers")) == list(optimizers)
    for name, optimizer in optimizers.items():
        stored = results.of("optimizers")[name]
        steps = runs[name].save_steps
        run = tw.descend(optimizer, plan.objective, plan.params, int(steps[-1]), save_steps=steps)
        np.testing.assert_allclose(stored.array("loss"), run.loss, rtol=1e-12)
        seen = results.of("observables")[name]
        points = [run[i] for i in range(len(run))]
        shares = [tw.observables.accuracy(plan.objective, p) for p in points]
        np.testing.assert_array_equal(seen.array("accuracy"), shares)


def test_observables_of_flows_have_error_bars(results):
    """Of first order: here against the same flow at a hundredth of the tolerance."""
    plan, _ = runs_of(SPEC)
    for flow in plan.flows:
        seen = results.of("observables")[flow.name]
        assert "accuracy_error" not in seen.data
        exact = tw.integrate(flow.flow, plan.objective, plan.params, save_at=flow.times, rtol=1e-8)
        exact = tw.observe(
            exact,
            gradient_norm=tw.observables.gradient_norm,
            parameter_norm=tw.observables.parameter_norm,
        )
        for name in ("gradient_norm", "parameter_norm"):
            off = np.abs(seen.array(name) - np.asarray(exact.observables[name]))
            assert np.all(off <= seen.array(f"{name}_error") + 1e-12)
            assert seen.array(f"{name}_error")[-1] < 1e-2 * seen.array(name)[-1]


def test_a_method_without_a_flow_is_compared_with_none(results):
    assert "flow" not in results.of("optimizers")["adam"].attributes
    assert list(results.of("comparisons")) == ["higher_momentum", "sgd"]
    said = [sentence["text"] for sentence in results.verdict]
    assert "Adam: no flow is known that it discretises, so it is compared with none." in said
    assert any(s.startswith("Adam: the tangent kernel predicts nothing") for s in said)
    assert any(s.startswith(("Sgd leaves its flow", "Sgd stays", "Sgd cannot")) for s in said)
    # Its steps are linear, and read.
    assert results.of("kernel")["sgd"].attributes["status_kind"] == "completed"


def test_the_clock_is_that_of_the_optimizer():
    for section in OneOf(tw.optimizers).classes(OptimizerSection):
        numbers = {"step_size": 0.01, "momentum": 0.3, "first": 0.3, "second": 0.2}
        given = {k: v for k, v in numbers.items() if k in section.model_fields}
        if section is tw.optimizers.OptaxSection:
            given = {"transformation": "lion", "arguments": {"learning_rate": 0.1}}
        made = section(**given)  # pyright: ignore[reportAbstractUsage]
        assert made.time_of_step() == pytest.approx(made.make().time_per_step)


def test_python_and_toml_declare_the_same():
    assert parse_spec(declared(SPEC).text).spec == SPEC


def test_stages_that_are_needed_come_along():
    names = [stage.name for stage in _wanted(["comparisons"])]
    assert names == ["flows", "optimizers", "laws", "comparisons"]
    with pytest.raises(ValueError, match="did you mean 'curvature'"):
        _wanted(["curvatur"])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ('transformation = "adm"', r"optimizers\[0\].transformation: unknown name 'adm'; did you"),
        ('transformation = "adam"\narguments = {b1 = 0.9}', r"missing 1 required .*learning_rate"),
        (
            'transformation = "lion"\narguments = {learning_rate = true}',
            "time_per_step: is missing",
        ),
        (
            'transformation = "adam"\narguments = {learning_rate = 0.1, b3 = 1.0}',
            r"optimizers\[0\].arguments: unknown name 'b3'; did you mean 'b2'",
        ),
        (
            'transformation = "adam"\narguments = {learning_rate = 0.1}\ntime_per_step = 2.0',
            r"fewer than 2 steps",
        ),
        (
            'transformation = "adam"\narguments = {learning_rate = 0.1}\nflow = {kind = "flow"}',
            r"optimizers\[0\].flow.kind: unknown kind 'flow'",
        ),
    ],
)
def test_mistakes_in_methods_of_optax(optimizer, message):
    text = declared(SPEC).text
    start = text[: text.index("[[optimizers]]")] + '[[optimizers]]\nkind = "optax"\n'
    with pytest.raises(SpecError, match=message):
        parse_spec(start + optimizer)


def test_momenta_that_grow_are_told_with_their_place():
    text = declared(SPEC).text.replace("first = 0.5", "first = 0.9")
    with pytest.raises(SpecError, match=r"optimizers\[2\].first: their sum must be below 1"):
        parse_spec(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"accuracy"', '"acuracy"', "did you mean 'accuracy'"),
        ('"accuracy"', '"activation_flips"', "needs a network with kinks"),
        (
            'kind = "digits"\nsamples = 20\nstandardise = false',
            'kind = "gaussian"\nsamples = 20\nfeatures = 3',
            "'accuracy' needs data with class labels",
        ),
    ],
)
def test_observables_that_make_no_sense(old, new, message):
    text = declared(SPEC).text
    assert old in text
    with pytest.raises(SpecError, match=message):
        build(parse_spec(text.replace(old, new)))


def test_a_residual_network_by_hand():
    network = tw.networks.residual(3, 2, 2, 1, key=jax.random.key(0))
    x = np.array([0.5, -1.0, 2.0])
    h = np.asarray(network.enter.weight) @ x
    for block in network.blocks:
        h = h + np.tanh(np.asarray(block.weight) @ h) / 2
    np.testing.assert_allclose(network(x), np.asarray(network.leave.weight) @ h, rtol=1e-12)
    assert json.dumps(tw.networks.ResidualSection().model_dump())
    with pytest.raises(ValueError, match="blocks"):
        tw.networks.residual(3, 2, 0, 1, key=jax.random.key(0))
