"""Losses against SciPy, mpmath and finite differences."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from thalweg.losses import CrossEntropy, SquaredError, cross_entropy, squared_error

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3))
LABELS = np.array([2, 0, 1, 1, 0])
ROWS = np.eye(3)[LABELS]


def test_squared_error_sums_over_outputs():
    targets = RNG.normal(size=(5, 3))
    expected = np.zeros(5)
    for i in range(5):
        for k in range(3):
            expected[i] += (LOGITS[i, k] - targets[i, k]) ** 2 / 2
    np.testing.assert_allclose(squared_error(jnp.asarray(LOGITS), jnp.asarray(targets)), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 3)])
def test_squared_error_of_any_shape(shape):
    predictions, targets = RNG.normal(size=(2, *shape))
    expected = [0.5 * np.linalg.norm(p - y) ** 2 for p, y in zip(predictions, targets, strict=True)]
    np.testing.assert_allclose(squared_error(jnp.asarray(predictions), targets), expected)


def test_cross_entropy_with_labels_and_with_rows():
    expected = [-log_softmax(row)[label] for row, label in zip(LOGITS, LABELS, strict=True)]
    for targets in (LABELS, LABELS.astype(np.uint8), ROWS):
        np.testing.assert_allclose(
            cross_entropy(jnp.asarray(LOGITS), jnp.asarray(targets)), expected, rtol=1e-14
        )


def test_cross_entropy_with_probabilities():
    rows = softmax(RNG.normal(size=(5, 3)), axis=1)
    expected = -(rows * log_softmax(LOGITS, axis=1)).sum(axis=1)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(LOGITS), jnp.asarray(rows)), expected)


@settings(max_examples=25, deadline=None)
@given(arrays(float, 4, elements=st.floats(-1e4, 1e4)), st.integers(0, 3))
def test_cross_entropy_of_extreme_logits(logits, label):
    with mpmath.workdps(40):
        exact = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(z)) for z in logits)) - logits[label]
    ours = float(cross_entropy(jnp.asarray(logits)[None], jnp.array([label]))[0])
    # The sum of logits is rounded at the size of the logits, whatever the result's own size.
    assert ours == pytest.approx(float(exact), abs=1e-15 * (1 + np.abs(logits).max()), rel=1e-14)


def test_derivatives_by_predictions():
    predictions = jnp.asarray(LOGITS)
    targets = jnp.asarray(RNG.normal(size=(5, 3)))
    gradient = jax.grad(lambda z: squared_error(z, targets).sum())(predictions)
    np.testing.assert_allclose(gradient, predictions - targets, rtol=1e-14)
    for labels in (LABELS, ROWS):
        gradient = jax.grad(lambda z, y=labels: cross_entropy(z, jnp.asarray(y)).sum())(predictions)
        np.testing.assert_allclose(gradient, softmax(LOGITS, axis=1) - ROWS, atol=1e-15)
    p = softmax(LOGITS[0])
    hessian = jax.hessian(lambda z: cross_entropy(z[None], jnp.array([1]))[0])(predictions[0])
    np.testing.assert_allclose(hessian, np.diag(p) - np.outer(p, p), atol=1e-15)


def test_dtype_is_kept():
    predictions = jnp.asarray(LOGITS, jnp.float32)
    assert squared_error(predictions, jnp.asarray(ROWS, jnp.float32)).dtype == jnp.float32
    assert cross_entropy(predictions, jnp.asarray(LABELS)).dtype == jnp.float32


def test_losses_have_names_and_are_equal_to_themselves():
    assert (squared_error.name, cross_entropy.name) == ("squared error", "cross-entropy")
    assert squared_error == SquaredError()
    assert hash(cross_entropy) == hash(CrossEntropy())
    assert squared_error != cross_entropy


@pytest.mark.parametrize(
    ("loss", "shape", "targets", "message"),
    [
        (squared_error, (5, 3), np.zeros((5, 2)), r"\(5, 2\) does not fit .* \(5, 3\)"),
        (squared_error, (5, 1), np.zeros(5), r"\(5,\) does not fit"),
        (squared_error, (5, 3), LABELS, "one-hot rows"),
        (cross_entropy, (5,), LABELS, "logits of shape"),
        (cross_entropy, (5, 3, 2), LABELS, "logits of shape"),
        (cross_entropy, (4, 3), LABELS, r"shape \(4,\)"),
        (cross_entropy, (5, 3), LABELS[:, None], r"shape \(5,\)"),
        (cross_entropy, (5, 2), LABELS, "labels run from 0 to 2, but the network has 2 outputs"),
        (cross_entropy, (5, 3), LABELS - 1, "labels run from -1 to 1"),
        (cross_entropy, (5, 4), ROWS, r"\(5, 3\) does not fit logits of shape \(5, 4\)"),
        (cross_entropy, (5, 3), 2 * ROWS, "probabilities"),
        (cross_entropy, (5, 3), 2 * ROWS - 1 / 3, "probabilities"),
    ],
)
def test_targets_that_do_not_fit(loss, shape, targets, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        loss.check(shape, jnp.asarray(targets))


def test_targets_that_fit():
    squared_error.check((5, 3), jnp.asarray(ROWS))
    for targets in (LABELS, LABELS.astype(np.int8), ROWS, ROWS.astype(np.float32)):
        cross_entropy.check((5, 3), jnp.asarray(targets))
