"""Results print, draw, label and save their own numbers."""

import pickle

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import xarray as xr

import thalweg as tw
from tests.problems import small_data, small_objective
from thalweg.results import AbstractResult, axes_of, citations, draw_line

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TIMES = np.array([0.0, 0.5, 1.0])


def two_modes(p):
    return jnp.sum(jnp.array([1.0, 3.0]) * p**2) / 2


@pytest.fixture(scope="module")
def results():
    objective, params = small_objective()
    run = tw.descend(tw.HeavyBall(0.01, 0.5), objective, params, 20, save_every=10)
    plain = tw.descend(tw.GradientDescent(0.05), objective, params, 20, save_every=10)
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=TIMES)
    flow = tw.observe(flow, curvature=tw.ExtremeEigenvalues(), norm=tw.observables.parameter_norm)
    network = tw.networks.fully_connected(
        [3, 4, 2], activation="linear", bias=False, key=jax.random.key(0)
    )
    inputs, targets = small_data()
    linear = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    valley = tw.FunctionObjective(two_modes)
    point, times = jnp.array([1.0, 1.0]), np.linspace(0, 1, 21)
    straight = tw.integrate(tw.GradientFlow(), valley, point, save_at=times)
    descent = tw.descend(tw.GradientDescent(0.01), valley, point, 20)
    arrived = tw.integrate(tw.GradientFlow(), valley, point, until=tw.until.gradient_norm(1e-8))
    many = tw.descend(tw.GradientDescent(0.01), valley, point, 400, save_every=10)
    return {
        "bound": tw.curvature.lower_bound(linear, network, radius=0.1),
        "certificate": tw.certify(valley, straight, epsilon=0.1),
        "run certificate": tw.certify_run(valley, descent),
        "largest": tw.largest_step(valley, point, 1e-2, 1.0),
        "limit": arrived.limit,
        "rate": tw.rate(many),
        "predicted rate": tw.predicted_rate(tw.GradientFlow(), np.array([1.0, 3.0])),
        "sublinear": tw.predicted_rate(tw.NesterovFlow(3.0), np.array([0.1, 3.0])),
        "prediction": tw.predicted_run(tw.GradientDescent(0.1), linear, network, [0, 5, 10]),
        "run": run,
        "flow": flow,
        "comparison": tw.compare(plain, flow),
        "eigenvalues": tw.extreme_eigenvalues(objective, params, largest=2),
        "along": flow.observables["curvature"],
        "law": tw.predicted_distance(tw.GradientDescent(0.05), objective, params, save_at=TIMES),
    }


def test_every_result_prints_draws_and_labels_itself(results, tmp_path):
    for name, result in results.items():
        assert isinstance(result, AbstractResult), name
        first, *others = str(result).splitlines()
        assert first
        assert others or name in ("rate", "predicted rate", "sublinear", "limit")
        assert "[" not in first, "no arrays"
        assert result._repr_html_().startswith("<pre>")
        axes = result.plot()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert result.plot(axes) is axes
        plt.close(axes.figure)
        data = result.to_xarray()
        assert isinstance(data, xr.Dataset)
        assert data.attrs["result"]
        stored = tw.load(tw.save(result, tmp_path / f"{name}.zarr"))
        assert set(stored.variables) == set(data.variables)
        for variable in data.variables:
            np.testing.assert_array_equal(stored[variable], data[variable], err_msg=variable)
        again = pickle.loads(pickle.dumps(result))
        assert str(again) == str(result)


def test_what_a_flow_says(results):
    flow = results["flow"]
    text = str(flow)
    moved = np.sqrt(sum(np.sum(np.square(w[-1] - w[0])) for w in flow.params))
    assert f"moved: {moved:.6f}" in text
    assert "gradient flow, 3 saved times from t = 0 to 1.00: completed" in text
    assert "±" in text
    assert f"{flow.stats.gradients} gradients, {flow.stats.error_gradients} for the error" in text
    assert f"norm: {float(flow.observables['norm'][-1]):.2f}" in text
    data = flow.to_xarray()
    np.testing.assert_array_equal(data["params[0]"], flow.params[0])
    assert data["params[0]"].dims[0] == "time"
    np.testing.assert_array_equal(data["error"], flow.error)
    assert data["time"].attrs["units"] == "flow time"
    assert "curvature.value" in data, "observables of several arrays, too"


def test_what_a_comparison_says(results):
    gap = results["comparison"]
    last, most = (str(gap).splitlines()[i] for i in (1, 2))
    for line, i in ((last, -1), (most, int(jnp.argmax(gap.distance)))):
        value, error = line.split(": ")[1].replace("−", "-").split(" at")[0].split(" ± ")
        assert float(value) == pytest.approx(float(gap.distance[i]), abs=float(gap.error[i]))
        assert float(error) == pytest.approx(float(gap.error[i]), rel=0.05)
    band = gap.plot().collections[0].get_paths()[0].vertices[:, 1]
    # The band reaches from the distance minus its error to the distance plus its error.
    assert band.max() == pytest.approx(float(jnp.max(gap.distance + gap.error)))
    plt.close("all")


def test_eigenvalues_at_a_saved_time(results):
    along, flow = results["along"], results["flow"]
    for i in (0, -1):
        found = tw.extreme_eigenvalues(flow.objective, flow[i])
        np.testing.assert_allclose(along[i].value, found.value, rtol=1e-3)
    with pytest.raises(IndexError):
        along[3]
    with pytest.raises(TypeError, match="of one point"):
        results["eigenvalues"][0]
    assert str(results["eigenvalues"]).count("largest: ") == 2


def test_indexing_a_trajectory(results):
    flow = results["flow"]
    assert len(flow) == 3
    for ours, theirs in ((flow[1], 1), (flow[-1], -1), (flow.final, 2)):
        for w, all_of_it in zip(ours, flow.params, strict=True):
            np.testing.assert_array_equal(w, all_of_it[theirs])
    part = flow[1:]
    assert len(part) == 2
    np.testing.assert_array_equal(part.times, TIMES[1:])
    np.testing.assert_array_equal(part.loss, flow.loss[1:])
    np.testing.assert_array_equal(part.error, flow.error[1:])
    assert part.status == flow.status
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            flow[beyond]


def test_a_run_from_checkpoints_is_the_run(results):
    objective, params = small_objective()
    optimizer = tw.GradientDescent(0.05)
    run = tw.descend(optimizer, objective, params, 20, save_every=10)
    saved = [jax.tree.map(np.asarray, run[i]) for i in range(3)]
    again = tw.Trajectory.from_checkpoints(
        saved, step_size=0.05, steps=[0, 10, 20], objective=objective, dynamics=optimizer
    )
    np.testing.assert_array_equal(again.times, run.times)
    np.testing.assert_allclose(again.loss, run.loss, rtol=1e-14)
    gaps = [tw.compare(trajectory, results["flow"]) for trajectory in (run, again)]
    np.testing.assert_array_equal(gaps[0].distance, gaps[1].distance)
    without = tw.Trajectory.from_checkpoints(saved[1:], step_size=0.05)
    assert np.isnan(without.loss).all()
    assert without.times.tolist() == [0.0, 0.05]
    for arguments, message in (
        (([],), "at one time at least"),
        (([saved[0], saved[1][:1]],), r"params\[1\]: other arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.Trajectory.from_checkpoints(*arguments, step_size=0.05)
    for steps in ([0, 10], [0, 10, 10], [-1, 0, 1]):
        with pytest.raises(ValueError, match=r"steps: expected 3 step numbers in increasing order"):
            tw.Trajectory.from_checkpoints(saved, step_size=0.05, steps=steps)


def test_works_to_cite_are_read_off_docstrings(results):
    (work,) = results["run"].to_xarray().attrs["references"]
    assert "Polyak" in work
    assert citations(tw.HeavyBall(0.1, 0.9), tw.HeavyBall(0.2, 0.9), None, 3.0) == [work]


def test_axes_become_logarithmic_where_numbers_do_not_fit_on_one_scale():
    for values, scale in (
        ([1.0, 1e-4], "log"),
        ([0.0, 1.0, 1e-4], "log"),
        ([1.0, 0.5], "linear"),
        ([1.0, -1e-4], "linear"),
        ([np.nan, np.nan], "linear"),
        ([0.0, 0.0], "linear"),
    ):
        axes = axes_of(None, "x", "y")
        draw_line(axes, range(len(values)), values, np.full(len(values), 2.0))
        assert axes.get_yscale() == scale, values
        plt.close(axes.figure)


def test_files_that_are_there_or_not(results, tmp_path):
    path = tw.save(results["comparison"], tmp_path / "gap.zarr")
    with pytest.raises(FileExistsError, match="exists already"):
        tw.save(results["comparison"], path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tw.load(tmp_path / "nothing.zarr")
    with pytest.raises(TypeError, match="result: expected a result of thalweg, got int"):
        tw.save(3, tmp_path / "three.zarr")
