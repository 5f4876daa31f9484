"""Eigenvalue intervals against dense spectra in float64."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg import AbstractObjective, Objective, losses, objectives
from thalweg.curvature import ExtremeEigenvalues, extreme_eigenvalues

from .oracles import dense


class Matrix(AbstractObjective):
    """A quadratic landscape."""

    matrix: jax.Array

    def value(self, params):
        return params @ self.matrix @ params / 2

    def gradient(self, params):
        return self.matrix @ params

    def hvp(self, params, vector):
        return jax.tree.map(lambda v: self.matrix @ v, vector)


def quadratic(spectrum, seed=0, dtype=jnp.float64):
    spectrum = np.asarray(spectrum, float)
    matrix = jnp.asarray(dense.matrix_with(spectrum, seed), dtype)
    return Matrix(matrix), jnp.zeros(len(spectrum), dtype)


def expected(spectrum, largest, smallest):
    spectrum = np.sort(spectrum)
    return np.concatenate([spectrum[::-1][:largest], spectrum[:smallest]])


def assert_intervals_hold(found, spectrum):
    for low, high in zip(np.asarray(found.lower), np.asarray(found.upper), strict=True):
        assert np.any((spectrum >= low) & (spectrum <= high)), (low, high)


def assert_found(found, spectrum, tolerance):
    """Every interval holds an eigenvalue, and the values are the extreme ones."""
    assert_intervals_hold(found, spectrum)
    assert bool(jnp.all(found.converged))
    exact = expected(spectrum, *found.counts)
    allowed = tolerance * max(np.abs(spectrum).max(), 1e-300)
    assert np.abs(np.asarray(found.value) - exact).max() <= allowed


# Networks

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "linear": lambda x: x}


@functools.cache
def network(activation):
    """One function per activation, so that nothing is compiled twice."""

    def predict(params, inputs):
        for weight, bias in params[:-1]:
            inputs = ACTIVATIONS[activation](inputs @ weight + bias)
        weight, bias = params[-1]
        return inputs @ weight + bias

    return predict


def parameters(widths, seed, dtype):
    keys = jr.split(jr.key(seed), len(widths) - 1)
    return [
        (jr.normal(k, (m, n), dtype) / float(np.sqrt(m)), 0.1 * jr.normal(k, (n,), dtype))
        for k, m, n in zip(keys, widths[:-1], widths[1:], strict=True)
    ]


def data(loss, widths, seed, samples=12, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.standard_normal((samples, widths[0])), dtype)
    if loss == "cross_entropy":
        return inputs, jnp.asarray(rng.integers(0, widths[-1], samples))
    return inputs, jnp.asarray(rng.standard_normal((samples, widths[-1])), dtype)


def problem(activation, loss, widths, seed, dtype=jnp.float64):
    predict, params = network(activation), parameters(widths, seed, dtype)
    inputs, targets = data(loss, widths, seed, dtype=dtype)
    objective = Objective(predict, getattr(losses, loss), inputs, targets)

    def spectrum_at(params):
        return dense.eigenvalues(
            dense.hessian(predict, getattr(dense, loss), inputs, targets, params)
        )

    return objective, params, spectrum_at


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        ("tanh", "squared_error"),
        ("tanh", "cross_entropy"),
        ("relu", "cross_entropy"),
        ("linear", "squared_error"),
    ],
)
def test_networks(activation, loss):
    objective, params, spectrum_at = problem(activation, loss, [5, 8, 6, 3], 1)
    found = extreme_eigenvalues(objective, params, 3, 2, tolerance=1e-6)
    assert_found(found, spectrum_at(params), 1e-6)
    product = jax.jit(objective.hvp)
    # Vectors have the structure of the parameters, length 1, and the residual is what it says.
    for i in range(5):
        vector = jax.tree.map(lambda leaf, i=i: leaf[i], found.vectors)
        flat = ravel_pytree(vector)[0]
        image = ravel_pytree(product(params, vector))[0]
        assert jnp.linalg.norm(flat) == pytest.approx(1.0, abs=1e-13)
        true = float(jnp.linalg.norm(image - found.value[i] * flat))
        assert true <= found.residual[i] <= true + 1e-11


@pytest.mark.parametrize(
    ("activation", "loss", "widths"),
    [
        ("tanh", "squared_error", [5, 8, 6, 3]),
        ("relu", "cross_entropy", [5, 8, 6, 3]),
        ("tanh", "cross_entropy", [2, 3, 2]),
        ("linear", "squared_error", [2, 3, 2]),
    ],
)
def test_float32_intervals_hold_eigenvalues_of_the_exact_hessian(activation, loss, widths):
    for seed in range(5):
        objective, params, spectrum_at = problem(activation, loss, widths, seed, jnp.float32)
        spectrum = spectrum_at(params)
        # A tolerance below what float32 gives: rounding is all that is left.
        tight = extreme_eigenvalues(objective, params, 2, 2, tolerance=1e-9, max_products=120)
        assert tight.value.dtype == jnp.float32
        assert_intervals_hold(tight, spectrum)
        assert float(jnp.max(tight.residual)) <= 1e-4 * np.abs(spectrum).max()
        assert not np.any(tight.converged)
        assert_found(extreme_eigenvalues(objective, params, 2, 2), spectrum, 1e-3)


def test_half_precision_is_honest():
    objective, params, spectrum_at = problem("tanh", "squared_error", [5, 8, 3], 0, jnp.float16)
    found = extreme_eigenvalues(objective, params, tolerance=0.1)
    assert found.value.dtype == jnp.float32
    assert_found(found, spectrum_at(params), 0.1)


# Matrices

# All of one size, so that they share their compiled searches.
SPECTRA = {
    "spread": np.linspace(-1, 2, 80),
    "zero": np.zeros(80),
    "identity": np.full(80, 3.0),
    "minus identity": np.full(80, -3.0),
    "low rank": np.r_[np.zeros(76), 1.0, 2.0, 3.0, 3.0],
    "two values": np.r_[np.full(40, -2.0), np.full(40, 5.0)],
    "double ends": np.r_[-1.0, -1.0, np.linspace(0, 1, 76), 4.0, 4.0],
    "clustered top": np.r_[np.linspace(0, 1, 77), 10.0, 10.0 + 1e-6, 10.0 + 2e-6],
    "tiny": 1e-30 * np.linspace(-1, 2, 80),
    "huge": 1e30 * np.linspace(-1, 2, 80),
}


@pytest.mark.parametrize("counts", [(1, 1), (3, 0), (2, 3)])
@pytest.mark.parametrize("name", list(SPECTRA))
def test_spectra(name, counts):
    spectrum = SPECTRA[name]
    objective, params = quadratic(spectrum)
    found = extreme_eigenvalues(objective, params, *counts, tolerance=1e-5)
    assert_found(found, spectrum, 1e-5)
    assert [len(found.largest.value), len(found.smallest.value)] == list(counts)


@settings(max_examples=40, deadline=None)
@given(
    base=st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=80, max_size=80),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_intervals_hold_on_any_spectrum(base, repeats, seed, scale):
    spectrum = scale * np.sort(np.r_[np.repeat(base[: 77 // repeats], repeats), np.zeros(80)][:80])
    matrix = jnp.asarray(dense.matrix_with(spectrum, seed))
    found = extreme_eigenvalues(
        Matrix(matrix), jnp.zeros(len(spectrum)), 2, 2, tolerance=1e-4, key=jr.key(seed)
    )
    assert_intervals_hold(found, dense.eigenvalues(matrix))


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_small_spaces_are_searched_completely(size):
    spectrum = np.linspace(-1, 3, size) if size > 1 else np.array([-2.0])
    objective, params = quadratic(spectrum)
    largest = (size + 1) // 2
    found = extreme_eigenvalues(objective, params, largest, size - largest)
    assert int(found.products) == size
    assert np.allclose(found.value, expected(spectrum, largest, size - largest), atol=1e-13)
    assert float(jnp.max(found.residual)) < 1e-12
    assert float(found.unseen()) == 0


def test_no_ghosts_after_many_steps():
    """Plain Lanczos copies an isolated top eigenvalue once it has converged."""
    spectrum = np.r_[np.linspace(0, 1, 147), 50.0, 60.0, 100.0]
    objective, params = quadratic(spectrum)
    found = extreme_eigenvalues(objective, params, 6, 0, tolerance=1e-9, basis_size=80)
    assert_found(found, spectrum, 1e-9)
    flat = np.asarray(found.vectors)
    assert np.abs(flat @ flat.T - np.eye(6)).max() < 1e-12


def test_restarts_keep_to_the_solution():
    spectrum = np.linspace(-1, 1, 300)
    objective, params = quadratic(spectrum)
    found = extreme_eigenvalues(objective, params, 2, 2, tolerance=1e-5, basis_size=20)
    assert int(found.products) > 60
    assert_found(found, spectrum, 1e-5)


def test_without_restart_it_takes_the_steps_that_lanczos_takes():
    """From one random vector the space searched is the Krylov space, and nothing else."""
    spectrum = np.linspace(-1, 2, 200)
    objective, params = quadratic(spectrum)
    steps = 30
    found = extreme_eigenvalues(
        objective, params, tolerance=1e-14, max_products=steps, basis_size=40, key=jr.key(5)
    )
    start = jr.normal(jr.fold_in(jr.key(5), 0), (200,))
    krylov, _ = np.linalg.qr(np.asarray(start)[:, None])
    matrix = np.asarray(objective.matrix)
    for _ in range(steps - 1):
        new = matrix @ krylov[:, -1]
        for _ in range(2):
            new = new - krylov @ (krylov.T @ new)
        krylov = np.c_[krylov, new / np.linalg.norm(new)]
    reference = dense.eigenvalues(krylov.T @ matrix @ krylov)
    assert np.allclose(found.value, [reference[-1], reference[0]], rtol=0, atol=1e-12)


def test_running_out_of_products_is_said():
    spectrum = np.linspace(0, 1, 80)
    objective, params = quadratic(spectrum)
    found = extreme_eigenvalues(objective, params, tolerance=1e-9, max_products=10)
    assert int(found.products) == 10
    assert not np.any(found.converged)
    assert_intervals_hold(found, spectrum)


def test_what_is_unseen_is_bounded():
    """Over many keys, the end of the spectrum lies beyond the bound less often than claimed."""
    spectrum = np.linspace(0, 1, 400) ** 3
    objective, params = quadratic(spectrum)
    founds = [
        extreme_eigenvalues(objective, params, tolerance=1e-9, max_products=24, key=jr.key(seed))
        for seed in range(20)
    ]
    for found in founds:
        assert 0 < float(found.unseen()) < 0.1
        assert spectrum[-1] <= float(found.value[0] + found.unseen())
        assert spectrum[0] >= float(found.value[1] - found.unseen())
    assert float(founds[0].unseen(0.1)) < float(founds[0].unseen(0.001))
    with pytest.raises(ValueError, match=r"failure: .* 1\.5"):
        founds[0].unseen(1.5)


# Along a trajectory


def test_warm_start_saves_products():
    objective, params, spectrum_at = problem("tanh", "squared_error", [6, 16, 3], 0)
    cold = extreme_eigenvalues(objective, params)
    step = jax.tree.map(lambda p, g: p - 1e-3 * g, params, objective.gradient(params))
    again = extreme_eigenvalues(objective, step)
    warm = extreme_eigenvalues(objective, step, start=cold)
    assert_found(warm, spectrum_at(step), 1e-3)
    assert int(warm.products) < 0.7 * int(again.products)


def test_warm_start_of_several():
    counts = (2, 3)
    spectrum = np.r_[np.linspace(-1, 1, 75), -8.0, -4.0, 4.0, 6.0, 8.0]
    objective, params = quadratic(spectrum)
    cold = extreme_eigenvalues(objective, params, *counts)
    near = Matrix(objective.matrix + 1e-3 * jnp.asarray(dense.matrix_with(spectrum, 1)))
    warm = extreme_eigenvalues(near, params, *counts, start=cold, key=jr.key(1))
    again = extreme_eigenvalues(near, params, *counts, key=jr.key(1))
    assert_found(warm, dense.eigenvalues(near.matrix), 1e-3)
    assert int(warm.products) < int(again.products)


def rotating(count):
    """A matrix whose top eigenvector is overtaken by one that rises out of the bulk."""
    for t in np.linspace(0, 1, count):
        spectrum = np.r_[np.linspace(0, 5, 150), 10 - 3 * t, 2 + 8 * t]
        yield (*quadratic(spectrum), spectrum)


def test_overtaking_eigenvalue_is_found():
    """The known eigenvectors stay exact, so that nothing but the search itself can tell."""
    observable = ExtremeEigenvalues(largest=1, smallest=1)
    carry = None
    for objective, params, spectrum in rotating(20):
        carry = observable.initial(objective, params) if carry is None else carry
        found, carry = observable(objective, params, carry)
        assert_found(found, spectrum, 1e-3)


def test_going_on_from_a_stored_carry_gives_the_same_bits():
    observable = ExtremeEigenvalues(largest=2, smallest=1, tolerance=1e-4)
    objective, params, _ = problem("tanh", "cross_entropy", [5, 8, 6, 3], 2)
    points = [jax.tree.map(lambda p, s=s: (1 + s) * p, params) for s in (0.0, 0.01, 0.02)]
    carry = observable.initial(objective, params)
    structure = jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    whole = []
    for point in points:
        found, carry = observable(objective, point, carry)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), carry) == structure
        whole.append((found, jax.tree.map(np.asarray, carry)))
    resumed = observable(objective, points[2], jax.tree.map(jnp.asarray, whole[1][1]))
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[2]), strict=True):
        assert np.array_equal(a, b)


def test_same_key_same_bits():
    objective, params = quadratic(np.linspace(-1, 2, 80))
    one, two = (extreme_eigenvalues(objective, params, key=jr.key(3)) for _ in range(2))
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def test_new_parameters_and_data_do_not_recompile():
    traces = []

    def predict(params, inputs):
        traces.append(None)
        return jnp.tanh(inputs @ params["w"])

    def search(seed, tolerance):
        inputs, targets = data("squared_error", [8, 6], seed)
        objective = Objective(predict, losses.squared_error, inputs, targets)
        extreme_eigenvalues(objective, {"w": jr.normal(jr.key(seed), (8, 6))}, tolerance=tolerance)
        return len(traces)

    assert search(0, 1e-3) == search(1, 1e-4)


def test_micro_batches_and_jit():
    objective, params, spectrum_at = problem("tanh", "squared_error", [5, 8, 3], 0)
    split = Objective(
        objective.predict,
        objective.loss,
        objective.inputs,
        objective.targets,
        reduction=objectives.MicroBatches(5),
    )
    found = jax.jit(lambda p: extreme_eigenvalues(split, p).value)(params)
    spectrum = spectrum_at(params)
    assert np.allclose(found, [spectrum[-1], spectrum[0]], atol=1e-3 * np.abs(spectrum).max())


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"largest": 50, "smallest": 40}, "50 \\+ 40 eigenvalues .* only 80 parameters"),
        ({"largest": -1}, "largest: must not be negative, got -1"),
        ({"largest": 0, "smallest": 0}, "nothing is asked for"),
        ({"tolerance": 0.0}, "tolerance: must be positive, got 0"),
        ({"tolerance": float("nan")}, "tolerance: must be finite"),
        ({"max_products": 1}, "max_products: 1 cannot give 2 eigenvalues"),
        ({"basis_size": 3}, "basis_size: 3 rows are too few"),
        ({"start": jnp.zeros((2, 81))}, "start: shape \\(2, 81\\)"),
        ({"start": jnp.full((2, 80), jnp.nan)}, "start: contains NaN"),
        ({"start": {"w": jnp.zeros((2, 80))}}, "start: structure"),
    ],
)
def test_bad_arguments(arguments, message):
    objective, params = quadratic(np.linspace(0, 1, 80))
    with pytest.raises(ValueError, match=message):
        extreme_eigenvalues(objective, params, **arguments)


def test_bad_types():
    objective, params = quadratic(np.linspace(0, 1, 80))
    with pytest.raises(TypeError, match=r"largest: expected a whole number, got 1\.5"):
        extreme_eigenvalues(objective, params, 1.5)  # pyright: ignore[reportArgumentType]


def test_numbers_that_are_not_finite():
    objective, params = quadratic(np.linspace(0, 1, 80))
    with pytest.raises(ValueError, match="params: contains NaN"):
        extreme_eigenvalues(objective, params.at[3].set(jnp.nan))
    broken = Matrix(objective.matrix.at[0, 0].set(jnp.inf))
    with pytest.raises(ValueError, match="not finite at these parameters"):
        extreme_eigenvalues(broken, params)


def test_what_is_no_objective_is_refused():
    with pytest.raises(TypeError, match="objective: expected an objective, got a function"):
        extreme_eigenvalues(lambda p: p, jnp.ones(2))  # pyright: ignore[reportArgumentType]


def test_parts_along_a_trajectory():
    """Observed values have a leading axis of saved times, of which nothing is cut off."""
    spectrum = np.linspace(-1, 3, 9)
    objective, params = quadratic(spectrum)
    flow = tw.integrate(tw.GradientFlow(), objective, params + 1, save_at=[0.0, 0.1, 0.2])
    found = tw.observe(flow, h=ExtremeEigenvalues(largest=2)).observables["h"]
    np.testing.assert_allclose(found.largest.value, np.tile(spectrum[[-1, -2]], (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(found.smallest.value, np.tile(spectrum[[0]], (3, 1)), rtol=1e-6)
    assert found.largest.vectors.shape == (3, 2, 9)
    assert found.smallest.residual.shape == found.smallest.converged.shape == (3, 1)
