"""The stabilised solvers as ordinary diffrax solvers: order, stability, price."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from thalweg.solvers import RKC2, RKC4
from thalweg.solvers._chebyshev import chebyshev_step, stages_for
from thalweg.solvers._radius import SpectralRadius


def field(t, y, rates):
    return -rates * y + 0.5 * jnp.sin(3 * t) * jnp.roll(y, 1) * y


RATES = jnp.array([0.3, 1.0, 3.0, 10.0])
START = jnp.array([1.0, 0.5, -1.0, 2.0])


def solve(solver, t1=2.0, dt0=None, tolerance=None, **options):
    """Steps and tolerances as arrays, lest every number be compiled anew."""
    controller = diffrax.ConstantStepSize()
    if tolerance is not None:
        tolerance = jnp.asarray(tolerance)
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    saveat = options.pop("saveat", diffrax.SaveAt(t1=True, solver_state=True))
    return diffrax.diffeqsolve(
        diffrax.ODETerm(options.pop("field", field)),
        solver,
        0.0,
        t1,
        None if dt0 is None else jnp.asarray(dt0),
        options.pop("start", START),
        options.pop("args", RATES),
        stepsize_controller=controller,
        saveat=saveat,
        adjoint=diffrax.ForwardMode(),
        max_steps=100_000,
        **options,
    )


def exact(times):
    rates = np.asarray(RATES)

    def numpy_field(t, y):
        return -rates * y + 0.5 * np.sin(3 * t) * np.roll(y, 1) * y

    return solve_ivp(numpy_field, (0, 2), START, "DOP853", times, rtol=1e-12, atol=1e-13).y.T


@pytest.mark.parametrize(("solver", "order"), [(RKC2(), 2), (RKC4(), 4)])
def test_order(solver, order):
    reference = exact([2.0])[-1]
    steps = 2.0 / np.array([40, 80, 160, 320])
    errors = [np.linalg.norm(solve(solver, dt0=h).ys[-1] - reference) for h in steps]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(orders > order - 0.15)
    assert orders[-1] == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(("solver", "order"), [(RKC2(), 2), (RKC4(), 4)])
def test_order_of_the_dense_output(solver, order):
    """Between the ends of a step the solution is as good as there."""
    errors = []
    for steps in (40, 80, 160):
        times = (np.arange(1, steps - 1) + 0.37) * 2 / steps
        found = solve(solver, dt0=2 / steps, saveat=diffrax.SaveAt(ts=times)).ys
        errors.append(np.abs(found - exact(times)).max())
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > order - 0.3)


def one_step(stages, z):
    """The stability polynomial: one step of y' = z y over unit time, from 1."""
    return chebyshev_step(lambda x, y: z * y, jnp.ones_like(z), z, jnp.asarray(stages))


@pytest.mark.parametrize("stages", [2, 3, 5, 10, 30, 100])
def test_stability_interval_grows_with_the_square_of_the_stages(stages):
    reach = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * 2 / 13)
    assert int(stages_for(jnp.asarray(0.999 * reach))) == stages
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


@pytest.mark.parametrize("reach", [3.0, 20.0, 300.0, 5000.0, 50_000.0])
def test_the_correction_is_stable_wherever_its_parts_are(reach):
    z = -jnp.linspace(0, reach, 4001)
    terms = diffrax.ODETerm(lambda t, y, args: z * y)
    t0, t1, one = jnp.zeros(()), jnp.ones(()), jnp.ones_like(z)
    factor = np.abs(RKC4().advance(terms, t0, t1, one, None, z, jnp.asarray(reach)).y1)
    assert factor.max() <= 1 + 1e-12
    assert factor[np.asarray(z) < -3].max(initial=0) < 0.97, "damped away from the origin"


@pytest.mark.parametrize("solver", [RKC2(), RKC4()])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_adaptive_steps_reach_their_tolerance(solver, tolerance):
    solution = solve(solver, tolerance=tolerance)
    error = np.linalg.norm(solution.ys[-1] - exact([2.0])[-1])
    assert error < 40 * tolerance


@pytest.mark.parametrize("solver", [RKC2(), RKC4()])
def test_dense_output_and_events_are_diffrax_s(solver):
    times = np.linspace(0.1, 1.9, 7)
    solution = solve(solver, tolerance=1e-6, saveat=diffrax.SaveAt(ts=times))
    assert np.abs(solution.ys - exact(times)).max() < 1e-4
    event = diffrax.Event(lambda t, y, args, **_: y[0] < 0.8)
    stopped = solve(solver, tolerance=1e-6, event=event)
    assert stopped.event_mask
    assert stopped.ts[-1] < 2


@pytest.mark.parametrize("solver", [RKC2(), RKC4()])
def test_backwards_in_time_and_over_a_batch(solver):
    def there_and_back(rates):
        there = solve(solver, args=rates, tolerance=1e-8).ys[-1]
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field), solver, 2.0, 0.0, None, there, rates,
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8), max_steps=100_000,
            adjoint=diffrax.ForwardMode(),
        ).ys[-1]  # fmt: skip

    batch = jnp.array([[0.3, 0.5, 0.1, 0.4], [1.0, 0.2, 0.3, 0.6]])
    np.testing.assert_allclose(jax.vmap(there_and_back)(batch), jnp.stack([START] * 2), atol=1e-5)


def test_price_on_a_stiff_problem():
    rates = jnp.geomspace(1e-2, 1e4, 20)
    common = {
        "field": lambda t, y, r: -r * (y - jnp.cos(t)),
        "args": rates,
        "start": jnp.ones(20),
        "t1": 10.0,
        "tolerance": 1e-4,
    }
    explicit = solve(diffrax.Tsit5(), **common)
    tight = solve(diffrax.Kvaerno5(), **{**common, "tolerance": 1e-9})
    for solver in (RKC2(), RKC4()):
        ours = solve(solver, **common)
        assert int(ours.solver_state.evaluations) < 6 * int(explicit.stats["num_steps"]) / 10
        assert np.abs(ours.ys[-1] - tight.ys[-1]).max() < 1e-3


@pytest.mark.parametrize("solver", [RKC2(), RKC4()])
def test_evaluations_are_counted(solver):
    seen = []

    def witnessed(t, y, args):
        jax.debug.callback(lambda: seen.append(1))
        return field(t, y, args)

    solution = solve(solver, dt0=0.1, field=witnessed)
    jax.effects_barrier()
    assert len(seen) == int(solution.solver_state.evaluations)


@pytest.mark.parametrize("solver", [RKC2(max_stages=20), RKC4(max_stages=10)])
def test_too_many_stages_make_a_failed_step(solver):
    stiff = {"field": lambda t, y, args: -1e6 * y, "start": jnp.ones(2), "args": None, "t1": 1e-2}
    limited = solve(solver, tolerance=1e-3, **stiff)
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
