"""Eigenvectors that linear solves gather: against dense ones, at any scale, and what they save."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thalweg.solvers import deflation_memory
from thalweg.solvers._deflation import Deflation, Rows, deflation_vectors
from thalweg.solvers._shifted_solve import shifted_solve

SIZE = 60
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
# A few outliers above a bulk, as networks have them.
VALUES = np.concatenate([np.geomspace(1e-4, 1, SIZE - 4), [40.0, 90.0, 300.0, 1000.0]])


@jax.jit
def solved(matrix, r, shift, enough, deflation):
    return shifted_solve(
        lambda y: -matrix @ y,
        jnp.zeros(SIZE, r.dtype),
        jnp.zeros(SIZE, r.dtype),
        shift,
        r,
        enough=enough,
        hopeless=jnp.asarray(jnp.inf, r.dtype),
        radius=jnp.zeros((), r.dtype),
        size=jnp.ones((), r.dtype),
        exact=jnp.asarray(True),
        deflation=deflation,
    )


def sequence(scale, dtype, count=6):
    """Solves with right-hand sides of their own, each with what the ones before gathered."""
    random = np.random.default_rng(1)
    matrix = jnp.asarray(TURN * (scale * VALUES) @ TURN.T, dtype)
    deflation = Deflation.empty(8, SIZE, jnp.asarray(1000 * scale, dtype))
    shift = jnp.asarray(0.05 * scale, dtype)
    for _ in range(count):
        r = random.normal(size=SIZE) * scale
        dense = np.linalg.solve(TURN * (scale * VALUES + float(shift)) @ TURN.T, r)
        enough = jnp.asarray(1e-3 * np.linalg.norm(dense), dtype)
        result = solved(matrix, jnp.asarray(r, dtype), shift, enough, deflation)
        yield dense, enough, result
        deflation = result.deflation


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_solves_stay_right_and_become_shorter(scale):
    prices = []
    for dense, enough, result in sequence(scale, "float64"):
        true = np.linalg.norm(np.asarray(result.x) - dense)
        assert true <= 1.01 * float(result.error) <= 1.02 * float(enough)
        assert result.definite
        prices.append(int(result.evaluations))
    assert prices[-1] < 0.75 * prices[0]


def test_eigenvectors_against_dense_ones():
    *_, (_, _, result) = sequence(1.0, "float64")
    found = result.deflation
    np.testing.assert_allclose(1000 * found.values[:4], VALUES[:-5:-1], rtol=1e-3)
    overlaps = np.abs(np.asarray(found.vectors[:4]) @ TURN[:, :-5:-1])
    np.testing.assert_allclose(np.diag(overlaps), 1, atol=1e-3)
    np.testing.assert_allclose(found.largest, 1000, rtol=1e-3)


def test_applied_is_the_inverse_up_to_a_factor_on_what_is_known():
    kept = TURN[:, -4:].T
    vectors, values = jnp.asarray(kept, "float32"), jnp.asarray(VALUES[-4:], "float32")
    deflation = Deflation(vectors, values, jnp.asarray(1.0))
    shift = 0.5
    inverse = np.eye(SIZE) + kept.T @ np.diag(40.5 / (VALUES[-4:] + shift) - 1) @ kept
    r = np.random.default_rng(2).normal(size=SIZE)
    applied = deflation.applied(jnp.asarray(r), jnp.asarray(shift))
    np.testing.assert_allclose(applied, inverse @ r, rtol=1e-5, atol=1e-6)


def test_nothing_known_changes_nothing():
    deflation = Deflation.empty(8, SIZE, jnp.asarray(0.0))
    r = jnp.arange(60.0)
    np.testing.assert_array_equal(deflation.applied(r, jnp.asarray(1e-30)), r)
    np.testing.assert_array_equal(deflation.applied(0 * r, jnp.asarray(1.0)), 0 * r)
    assert deflation.largest == 0


@pytest.mark.parametrize("image", [jnp.inf, jnp.nan, 1e30])
def test_what_single_precision_does_not_hold_is_not_kept(image):
    *_, (_, _, result) = sequence(1.0, "float64", 2)
    known = result.deflation
    vectors = jnp.zeros((16, SIZE), "float32").at[0, 0].set(1)
    renewed = known.renewed(Rows(vectors, vectors * jnp.float32(image)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(renewed))
    np.testing.assert_allclose(1000 * renewed.values[:4], VALUES[:-5:-1], rtol=0.01)


def test_how_many_are_kept():
    assert [deflation_vectors(n) for n in (10, 399, 400, 30_000)] == [0, 0, 40, 40]
    assert deflation_vectors(100_000) == 12
    assert deflation_vectors(150_000) == 8
    assert deflation_vectors(150_001) == deflation_vectors(10**9) == 0
    sizes = np.unique(np.geomspace(1, 1e8, 200).astype(int))
    assert max(deflation_memory(int(n)) for n in sizes) <= 4_800_000
