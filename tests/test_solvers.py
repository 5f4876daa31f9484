"""The stabilised solver as an ordinary diffrax solver: order, stability, price."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from thalweg.solvers import RKC2
from thalweg.solvers._radius import SpectralRadius
from thalweg.solvers._rkc2 import _stage_loop, _stages


def field(t, y, rates):
    return -rates * y + 0.5 * jnp.sin(3 * t) * jnp.roll(y, 1) * y


RATES = jnp.array([0.3, 1.0, 3.0, 10.0])
START = jnp.array([1.0, 0.5, -1.0, 2.0])


def solve(solver, t1=2.0, dt0=None, tolerance=None, **options):
    controller = diffrax.ConstantStepSize()
    if tolerance is not None:
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    saveat = options.pop("saveat", diffrax.SaveAt(t1=True, solver_state=True))
    return diffrax.diffeqsolve(
        diffrax.ODETerm(options.pop("field", field)),
        solver,
        0.0,
        t1,
        dt0,
        options.pop("start", START),
        options.pop("args", RATES),
        stepsize_controller=controller,
        saveat=saveat,
        adjoint=diffrax.ForwardMode(),
        max_steps=100_000,
        **options,
    )


def exact(times):
    def numpy_field(t, y):
        return np.asarray(field(t, jnp.asarray(y), RATES))

    return solve_ivp(numpy_field, (0, 2), START, "DOP853", times, rtol=1e-12, atol=1e-13).y.T


def test_order_two():
    reference = exact([2.0])[-1]
    steps = 2.0 / np.array([40, 80, 160, 320])
    errors = [np.linalg.norm(solve(RKC2(), dt0=h).ys[-1] - reference) for h in steps]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(orders > 1.85)
    assert orders[-1] == pytest.approx(2, abs=0.15)


def one_step(stages, z):
    """The stability polynomial: one step of y' = z y over unit time, from 1."""
    term = diffrax.ODETerm(lambda t, y, args: z * y)
    y0 = jnp.ones_like(z)
    t0, t1 = jnp.zeros(()), jnp.ones(())
    return _stage_loop(term, t0, t1, y0, None, z * y0, t1, jnp.asarray(stages))


@pytest.mark.parametrize("stages", [2, 3, 5, 10, 30, 100])
def test_stability_interval_grows_with_the_square_of_the_stages(stages):
    reach = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * 2 / 13)
    assert int(_stages(jnp.asarray(0.999 * reach))) == stages
    z = -jnp.linspace(0, reach, 4001)
    assert np.abs(one_step(stages, z)).max() <= 1 + 1e-9
    if stages > 2:
        inside = np.asarray(one_step(stages, -jnp.linspace(3, 0.99 * reach, 4001)))
        assert np.abs(inside).max() < 0.97, "damped away from the origin"


@pytest.mark.parametrize("stages", [2, 4, 17, 200])
def test_every_stage_number_is_consistent_to_second_order(stages):
    z = jnp.asarray([1e-3, 1e-2])
    defect = np.asarray(one_step(stages, z)) - (1 + z + z**2 / 2)
    assert np.all(np.abs(defect) < 0.2 * z**3)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_adaptive_steps_reach_their_tolerance(tolerance):
    solution = solve(RKC2(), tolerance=tolerance)
    error = np.linalg.norm(solution.ys[-1] - exact([2.0])[-1])
    assert error < 40 * tolerance


def test_dense_output_and_events_are_diffrax_s():
    times = np.linspace(0.1, 1.9, 7)
    solution = solve(RKC2(), tolerance=1e-6, saveat=diffrax.SaveAt(ts=times))
    assert np.abs(solution.ys - exact(times)).max() < 1e-4
    event = diffrax.Event(lambda t, y, args, **_: y[0] < 0.8)
    stopped = solve(RKC2(), tolerance=1e-6, event=event)
    assert stopped.event_mask
    assert stopped.ts[-1] < 2


def test_price_on_a_stiff_problem():
    rates = jnp.geomspace(1e-2, 1e4, 20)
    common = {
        "field": lambda t, y, r: -r * (y - jnp.cos(t)),
        "args": rates,
        "start": jnp.ones(20),
        "t1": 10.0,
        "tolerance": 1e-4,
    }
    ours = solve(RKC2(), **common)
    explicit = solve(diffrax.Tsit5(), **common)
    assert int(ours.solver_state.evaluations) < 6 * int(explicit.stats["num_steps"]) / 10
    tight = solve(diffrax.Kvaerno5(), **{**common, "tolerance": 1e-9})
    assert np.abs(ours.ys[-1] - tight.ys[-1]).max() < 1e-3


def test_evaluations_are_counted():
    seen = []

    def witnessed(t, y, args):
        jax.debug.callback(lambda: seen.append(1))
        return field(t, y, args)

    solution = solve(RKC2(), dt0=0.1, field=witnessed)
    jax.effects_barrier()
    assert len(seen) == int(solution.solver_state.evaluations)


def test_too_many_stages_make_a_failed_step():
    stiff = {"field": lambda t, y, args: -1e6 * y, "start": jnp.ones(2), "args": None, "t1": 1e-2}
    limited = solve(RKC2(max_stages=20), tolerance=1e-3, **stiff)
    assert int(limited.stats["num_rejected_steps"]) > 0
    assert np.abs(limited.ys[-1]).max() < 1e-2


@pytest.mark.parametrize("spectrum", [[-7.0, -1.0, 0.5], [-300.0, -299.0, -1e-3]])
def test_spectral_radius_of_a_linear_field(spectrum):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = jnp.asarray(basis @ np.diag(spectrum) @ basis.T)
    y = jnp.asarray(rng.normal(size=3))
    start = SpectralRadius.unknown(y)
    assert bool(start.due)
    found, count = start.estimated(lambda x: matrix @ x, y, matrix @ y)
    true = np.abs(spectrum).max()
    assert 0.9 * true < float(found.value) < 1.01 * true
    again, fewer = found.estimated(lambda x: matrix @ x, y, matrix @ y)
    assert int(fewer) <= int(count)
    assert int(again.patience) > int(found.patience)
    assert not bool(again.due)
