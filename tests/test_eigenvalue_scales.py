"""Eigenvalue intervals where squares, products or eigenvalues under- and overflow."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from thalweg._powers import exponent, scale_of, times_power

from .oracles import dense, spectra
from .test_curvature import Matrix

# One size, so that each dtype compiles one search.
SIZE = 40


def search(matrix, **options):
    params = jnp.zeros(len(matrix), matrix.dtype)
    return tw.extreme_eigenvalues(Matrix(jnp.asarray(matrix)), params, **options)


def ends(dtype):
    """Scales near both ends of the range, at their roots, and at 1."""
    info = np.finfo(dtype)
    tiny, largest = np.longdouble(info.tiny), np.longdouble(info.max)
    return [tiny, tiny * 1e6, np.sqrt(tiny), 1.0, np.sqrt(largest), largest / 1e4, largest]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", spectra.KINDS)
def test_intervals_hold_eigenvalues_at_every_scale(kind, dtype):
    rng = np.random.default_rng(list(spectra.KINDS).index(kind))
    for scale in ends(dtype):
        matrix, _ = spectra.draw(rng, kind, SIZE, dtype, scale)
        found = search(matrix, tolerance=2e-4, max_products=100)
        exact = spectra.eigenvalues(matrix)
        assert spectra.misses(found.lower, found.upper, exact).size == 0, scale
        # Between the ends of the range the scale changes nothing.
        if np.finfo(dtype).tiny * 1e5 < scale < np.finfo(dtype).max:
            assert np.all(found.converged), scale
            error = np.abs(np.asarray(found.value).astype(np.longdouble) - exact[[-1, 0]]).max()
            assert error <= 1e-3 * np.abs(exact).max()


def test_the_oracle_is_more_exact_than_float64():
    spectrum = np.r_[np.repeat([3.0, -2.0], 8), np.zeros(16)]
    signs = np.array([[1.0]])
    for _ in range(5):
        signs = np.block([[signs, signs], [signs, -signs]])
    # A Hadamard matrix: every number is exact.
    matrix = (signs * spectrum) @ signs.T / 32
    assert np.abs(spectra.eigenvalues(matrix) - np.sort(spectrum)).max() < 1e-17


def test_an_operator_that_counts_as_zero_says_so():
    found = search(np.zeros((SIZE, SIZE)))
    assert np.all(found.value == 0)
    assert np.all(found.converged)
    assert 0 < float(found.residual[0]) < 1e-300
    assert "Every Hessian-vector product was zero" in found.limit
    # Numbers below the smallest normal one count as zero.
    denormal = 1e-3 * np.finfo(float).tiny * np.eye(SIZE)
    assert float(search(denormal).upper[0]) >= 1e-3 * np.finfo(float).tiny


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_underflows_is_not_called_converged(dtype):
    matrix = dense.matrix_with(np.linspace(0.5, 1, SIZE), 0)
    found = search((matrix * np.longdouble(np.finfo(dtype).tiny) * 100).astype(dtype))
    assert not np.any(found.converged)
    assert "too small for their dtype" in found.limit
    assert "Scale the objective up" in found.limit
    usual = search(matrix.astype(dtype))
    assert np.all(usual.converged)
    assert usual.limit == "Every residual is within the tolerance."


def test_what_is_out_of_range_is_not_called_converged():
    # All entries fit, but the eigenvalue is SIZE times as large.
    matrix = np.full((SIZE, SIZE), np.finfo(np.float32).max, np.float32)
    found = search(matrix)
    assert not found.converged[0]
    assert np.isinf(found.upper[0])
    assert "larger than the largest number of float32" in found.limit


def test_what_limits_ordinary_searches():
    matrix = dense.matrix_with(np.linspace(-1, 1, SIZE), 0)
    short = search(matrix, max_products=8)
    assert short.limit == "The 8 products that were allowed did not suffice."
    assert "rounding" in search(matrix.astype(np.float32), tolerance=1e-9).limit


@pytest.mark.parametrize("scale", [1e-300, 1e-180, 1e200, 1e300])
def test_scaling_by_a_power_of_two_changes_no_bit(scale):
    power = np.exp2(np.round(np.log2(scale)))
    matrix = dense.matrix_with(np.linspace(-1, 2, SIZE), 3)
    one, other = search(matrix), search(matrix * power)
    assert np.array_equal(np.asarray(one.value) * power, other.value)
    assert np.array_equal(one.vectors, other.vectors)
    assert int(other.products) <= int(one.products) + 1


def test_the_length_of_start_vectors_does_not_matter():
    matrix = dense.matrix_with(np.linspace(-1, 2, SIZE), 3)
    start = np.random.default_rng(0).normal(size=(1, SIZE))
    one, small, large = (
        search(matrix, start=jnp.asarray(start * length)) for length in (1.0, 2.0**-600, 2.0**600)
    )
    assert np.array_equal(one.value, small.value)
    assert np.array_equal(one.value, large.value)


def test_deep_networks_near_zero():
    """Twelve layers of weights of about 0.005: curvature is 1e-19, and its square underflows."""
    network = tw.networks.fully_connected(
        [4] * 12 + [2], activation="tanh", init="near_zero", bias=False, key=jr.key(0)
    )
    network = jax.tree.map(lambda w: w.astype(jnp.float32), network)
    rng = np.random.default_rng(0)
    inputs, targets = (rng.normal(size=(10, n)).astype(np.float32) for n in (4, 2))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    hessian = dense.hessian(tw.networks.apply, dense.squared_error, inputs, targets, network)
    found = tw.extreme_eigenvalues(objective, network, 2, 2)
    exact = spectra.eigenvalues(np.asarray(hessian))
    assert 1e-20 < exact[-1] < 1e-18
    assert np.all(found.converged)
    assert spectra.misses(found.lower, found.upper, exact).size == 0
    assert np.allclose(found.value, exact[[-1, -2, 0, 1]], rtol=0, atol=1e-3 * exact[-1])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_powers_of_two(dtype):
    info = jnp.finfo(dtype)
    numbers = jnp.asarray([info.tiny, info.max, 1.0, -3.0, 0.0, jnp.inf], dtype)
    least, most = int(info.minexp), int(info.maxexp)
    assert exponent(numbers).tolist() == [least, most - 1, 0, 1, least - 1, most]
    # From one end of the range to the other: no factor of this dtype does it at once.
    across = times_power(numbers[:2], jnp.asarray([-2 * least, 2 * least]))
    assert across.tolist() == [2.0**-least, float(info.max) * 2.0**least * 2.0**least]
    assert float(scale_of([numbers[2:3], numbers[3:4]], dtype)) == 2
    assert bool(jnp.all(jnp.isfinite(numbers[:2] / scale_of(numbers[:2], dtype))))
    assert float(numbers[4] / scale_of(numbers[4:5], dtype)) == 0
