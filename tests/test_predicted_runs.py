"""Predicted runs against the linearised network, run by hand, and against random draws."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from tests.test_real_kernels import dense_jacobian

from .oracles import frozen, wide

ETA = 0.15
RNG = np.random.default_rng(0)
INPUTS, TARGETS, OTHERS = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 2)), RNG.normal(size=(3, 4))
NETWORK = tw.networks.fully_connected(
    [4, 7, 2], init=tw.networks.TangentKernel(1.2, 0.3), key=jr.key(0)
)
OBJECTIVE = tw.Objective(tw.networks.apply, tw.losses.squared_error, INPUTS, TARGETS)
STEPS = np.array([0, 1, 7, 60])


def nesterov(k, w, before, _, gradient):
    ahead = w + k / (k + 3) * (w - before)
    return ahead - ETA * gradient(ahead)


BY_HAND = [
    (tw.GradientDescent(ETA), lambda k, w, b, e, g: w - ETA * g(w)),
    (tw.HeavyBall(ETA, 0.8), lambda k, w, b, e, g: w + 0.8 * (w - b) - ETA * g(w)),
    (tw.Nesterov(ETA), nesterov),
    (
        tw.HigherMomentum(ETA, 0.4, 0.3),
        lambda k, w, b, e, g: w + 0.4 * (w - b) + 0.3 * (b - e) - ETA * g(w),
    ),
]


@pytest.mark.parametrize(("optimizer", "step"), BY_HAND, ids=lambda x: getattr(x, "name", ""))
def test_the_linearised_network(optimizer, step):
    predicted = tw.predicted_run(optimizer, OBJECTIVE, NETWORK, STEPS, inputs=OTHERS)
    jacobian = dense_jacobian(OBJECTIVE, NETWORK, np.concatenate([INPUTS, OTHERS]))
    start = np.asarray(tw.networks.apply(NETWORK, np.concatenate([INPUTS, OTHERS])))
    expected = wide.linearised(jacobian[:6], start[:6], TARGETS, step, 60)[STEPS]
    np.testing.assert_allclose(predicted.outputs, expected, atol=1e-10)
    loss = np.sum((expected - TARGETS) ** 2, axis=(1, 2)) / 12
    np.testing.assert_allclose(predicted.loss, loss, atol=1e-10)
    np.testing.assert_array_equal(predicted.steps, STEPS)
    np.testing.assert_allclose(predicted.times, STEPS * optimizer.time_per_step)
    assert predicted.error is None
    assert predicted.status.kind == "completed"
    # Elsewhere: what moves the weights least, since steps stay in the span of the gradients.
    flat, far = jacobian[:6].reshape(12, -1), jacobian[6:].reshape(6, -1)
    for row, now in zip(predicted.others, expected, strict=True):
        weights = np.linalg.lstsq(flat, (now - start[:6]).ravel(), rcond=None)[0]
        np.testing.assert_allclose(row, start[6:] + (far @ weights).reshape(3, 2), atol=1e-9)


def linearised_objective(loss, targets):
    flat, unravel = ravel_pytree(NETWORK)

    def predict(p, x):
        value, change = jax.jvp(lambda q: tw.networks.apply(unravel(q), x), (flat,), (p - flat,))
        return value + change

    return tw.Objective(predict, loss, INPUTS, targets), flat


@pytest.mark.parametrize("flow", [tw.GradientFlow(), tw.HeavyBallFlow(0.7), tw.NesterovFlow()])
def test_flows_of_the_linearised_network(flow):
    objective, flat = linearised_objective(tw.losses.squared_error, TARGETS)
    times = [0.0, 1.0, 8.0]
    run = tw.integrate(flow, objective, flat, save_at=times, rtol=1e-9, atol=1e-11)
    predicted = tw.predicted_run(flow, OBJECTIVE, NETWORK, times)
    outputs = jax.vmap(objective.predictions)(run.params)
    np.testing.assert_allclose(predicted.outputs, outputs, atol=1e-6)
    assert predicted.steps is None


def frozen_problem():
    """The kernel over the number of samples, and the prediction error at the start."""
    jacobian = dense_jacobian(OBJECTIVE, NETWORK, INPUTS).reshape(12, -1)
    start = np.asarray(tw.networks.apply(NETWORK, INPUTS)) - TARGETS
    return jacobian @ jacobian.T / 6, start


@pytest.mark.parametrize(
    ("flow", "exact"),
    [
        (tw.GradientFlow(), frozen.gradient_flow),
        (tw.HeavyBallFlow(0.1), lambda h, x, t: frozen.heavy_ball_flow(h, x, 0.1, t)),
        (tw.HeavyBallFlow(9.0), lambda h, x, t: frozen.heavy_ball_flow(h, x, 9.0, t)),
        (tw.NesterovFlow(2.0), lambda h, x, t: frozen.nesterov_flow(h, x, 2.0, t)),
        (tw.NesterovFlow(3.0), lambda h, x, t: frozen.nesterov_flow(h, x, 3.0, t)),
        (tw.NesterovFlow(6.5), lambda h, x, t: frozen.nesterov_flow(h, x, 6.5, t)),
    ],
    ids=lambda x: str(x) if isinstance(x, tw.Flow) else "",
)
def test_flows_of_a_frozen_kernel_against_mpmath(flow, exact):
    h, start = frozen_problem()
    times = [0.0, 1e-3, 0.7, 5.0, 40.0]
    predicted = tw.predicted_run(flow, OBJECTIVE, NETWORK, times)
    expected = np.array([start.ravel(), *(exact(h, start, t) for t in times[1:])])
    found = np.asarray(predicted.outputs - TARGETS).reshape(len(times), -1)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(("optimizer", "step"), BY_HAND, ids=lambda x: getattr(x, "name", ""))
def test_optimizers_of_a_frozen_kernel_against_mpmath(optimizer, step):
    h, start = frozen_problem()
    at = np.array([0, 1, 2, 30, 200])
    predicted = tw.predicted_run(optimizer, OBJECTIVE, NETWORK, at)
    expected = frozen.steps(h, start, step, 200)[at]
    found = np.asarray(predicted.outputs - TARGETS).reshape(len(at), -1)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("outputs", ["all", "each", "mean"])
def test_cross_entropy(outputs):
    labels = RNG.integers(0, 2, 6)
    objective = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, INPUTS, labels)
    predicted = tw.predicted_run(
        tw.HeavyBall(ETA, 0.8), objective, NETWORK, STEPS, outputs=outputs, inputs=INPUTS[:2]
    )
    kernel = tw.kernels.empirical(objective, NETWORK).matrix(outputs)
    act = {
        "all": lambda v: np.einsum("aibj,bj->ai", kernel, v),
        "each": lambda v: np.einsum("iab,bi->ai", kernel, v),
        "mean": lambda v: kernel @ v,
    }[outputs]
    now = before = np.asarray(objective.predictions(NETWORK))
    rows = []
    for k in range(61):
        if k in STEPS:
            rows.append(now)
        chance = np.exp(now) / np.exp(now).sum(axis=1, keepdims=True)
        slope = (chance - np.eye(2)[labels]) / 6
        now, before = now + 0.8 * (now - before) - ETA * act(slope), now
    np.testing.assert_allclose(predicted.outputs, rows, atol=1e-11)
    np.testing.assert_allclose(predicted.others, np.asarray(rows)[:, :2], atol=1e-9)


def test_a_flow_of_cross_entropy_has_an_error():
    labels = RNG.integers(0, 2, 6)
    objective = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, INPUTS, labels)
    coarse, fine = (
        tw.predicted_run(tw.GradientFlow(), objective, NETWORK, [0.0, 4.0], rtol=rtol)
        for rtol in (1e-3, 1e-9)
    )
    apart = np.linalg.norm((coarse.outputs - fine.outputs)[-1])
    assert 1e-8 < apart < coarse.error[-1] < 1e-2


def test_what_is_no_linear_optimizer():
    fine = tw.Optax(optax.sgd(ETA, momentum=0.8))
    predicted = tw.predicted_run(fine, OBJECTIVE, NETWORK, [0, 9])
    ours = tw.predicted_run(tw.HeavyBall(ETA, 0.8), OBJECTIVE, NETWORK, [0, 9])
    np.testing.assert_allclose(predicted.outputs, ours.outputs, atol=1e-12)
    for other in (optax.adam(0.1), optax.sign_sgd(0.1)):
        with pytest.raises(ValueError, match="not linear"):
            tw.predicted_run(tw.Optax(other), OBJECTIVE, NETWORK, [0, 9])


def test_a_step_too_long_is_a_status():
    largest = np.linalg.eigvalsh(tw.kernels.empirical(OBJECTIVE, NETWORK).matrix().reshape(12, 12))[
        -1
    ]
    limit = 2 / (largest / 6)
    long = tw.predicted_run(tw.GradientDescent(1.01 * limit), OBJECTIVE, NETWORK, [0, 3])
    assert long.status.kind == "diverged"
    assert f"curvature {largest / 6:.6g}" in long.status.message
    assert f"below {limit:.6g}" in long.status.message
    short = tw.predicted_run(tw.GradientDescent(0.99 * limit), OBJECTIVE, NETWORK, [0, 3])
    assert short.status.ok


def test_bad_requests():
    with pytest.raises(ValueError, match="whole"):
        tw.predicted_run(tw.GradientDescent(ETA), OBJECTIVE, NETWORK, [0.5])
    with pytest.raises(ValueError, match="increasing"):
        tw.predicted_run(tw.GradientDescent(ETA), OBJECTIVE, NETWORK, [3, 1])
    with pytest.raises(TypeError, match="flow or an optimizer"):
        tw.predicted_run("sgd", OBJECTIVE, NETWORK, [0])
    with pytest.raises(ValueError, match="first, second: their sum"):
        tw.HigherMomentum(0.1, 0.5, 0.5)


def test_an_ensemble_against_draws():
    network = tw.kernels.fully_connected(2, activation="erf", weight_std=1.3, bias_std=0.3)
    optimizer, same = tw.HeavyBall(0.3, 0.8), tw.Optax(optax.sgd(0.3, momentum=0.8))
    predicted = tw.kernels.predicted_ensemble(same, OBJECTIVE, network, [0, 10, 100], inputs=OTHERS)
    kernels = network(np.concatenate([INPUTS, OTHERS]))
    draws = 20_000
    root = np.linalg.cholesky(np.asarray(kernels.nngp))
    now = before = root @ np.random.default_rng(1).normal(size=(9, draws))
    rows, losses = [], []
    for k in range(101):
        residual = now[:6] - TARGETS[:, :1]
        if k in (0, 10, 100):
            rows.append(now)
            losses.append(np.mean(residual**2) / 2)
        force = np.asarray(kernels.tangent)[:, :6] @ residual / 6
        now, before = now + 0.8 * (now - before) - 0.3 * force, now
    for i, row in enumerate(rows):
        mean = np.concatenate([predicted.outputs[i], predicted.others[i]])[:, 0]
        variance = np.concatenate([predicted.variance[i], predicted.others_variance[i]])[:, 0]
        assert np.all(np.abs(row.mean(axis=1) - mean) < 4 * np.sqrt(variance / draws) + 1e-12)
        np.testing.assert_allclose(row.var(axis=1), variance, rtol=0.05, atol=1e-12)
    one = tw.Objective(OBJECTIVE.predict, OBJECTIVE.loss, INPUTS, TARGETS[:, :1])
    alone = tw.kernels.predicted_ensemble(optimizer, one, network, [0, 10, 100])
    np.testing.assert_allclose(alone.loss, losses, rtol=0.05)


def test_an_ensemble_for_another_loss():
    """With a loss that is the squared error, but does not say so."""

    def loss(predictions, targets):
        return 0.5 * jnp.sum((predictions - targets) ** 2, axis=1)

    network = tw.kernels.fully_connected(2, activation="erf", bias_std=0.3)
    objective = tw.Objective(OBJECTIVE.predict, loss, INPUTS, TARGETS)
    optimizer, at = tw.GradientDescent(0.5), [0, 30]
    exact = tw.kernels.predicted_ensemble(optimizer, OBJECTIVE, network, at, inputs=OTHERS)
    drawn = tw.kernels.predicted_ensemble(
        optimizer, objective, network, at, inputs=OTHERS, draws=30, key=jr.key(0)
    )
    gap = np.linalg.norm((drawn.outputs - exact.outputs).reshape(2, -1), axis=1)
    assert np.all(gap < 2 * drawn.error + 1e-9)
    np.testing.assert_allclose(drawn.variance.sum(), exact.variance.sum(), rtol=0.3)
    with pytest.raises(ValueError, match="draws, key"):
        tw.kernels.predicted_ensemble(optimizer, objective, network, at)


def test_an_ensemble_for_labels():
    """The number of outputs is what is said, also where the last class has no sample."""
    network = tw.kernels.fully_connected(2, activation="erf")
    optimizer, labels = tw.GradientDescent(0.5), np.asarray([0, 1, 1, 0, 1, 0])
    rows = {}
    for name, targets, outputs in (("labels", labels, 3), ("rows", np.eye(3)[labels], None)):
        objective = tw.Objective(OBJECTIVE.predict, tw.losses.cross_entropy, INPUTS, targets)
        rows[name] = tw.kernels.predicted_ensemble(
            optimizer, objective, network, [0, 9], outputs=outputs, draws=3, key=jr.key(0)
        ).outputs
    assert rows["labels"].shape == (2, 6, 3)
    np.testing.assert_allclose(rows["labels"], rows["rows"], atol=1e-12)
    objective = tw.Objective(OBJECTIVE.predict, tw.losses.cross_entropy, INPUTS, labels)
    for outputs, message in ((None, "do not say how many"), (1, "0 to 0"), (0, "outputs")):
        with pytest.raises(ValueError, match=message):
            tw.kernels.predicted_ensemble(
                optimizer, objective, network, [0, 9], outputs=outputs, draws=3, key=jr.key(0)
            )
    rough = lambda predictions, targets: jnp.abs(predictions - targets)  # noqa: E731
    objective = tw.Objective(OBJECTIVE.predict, rough, INPUTS, np.ones(6))
    with pytest.raises(ValueError, match="expected rows"):
        tw.kernels.predicted_ensemble(
            optimizer, objective, network, [0, 9], outputs=1, draws=3, key=jr.key(0)
        )
    with pytest.raises(ValueError, match="are for 2"):
        tw.kernels.predicted_ensemble(optimizer, OBJECTIVE, network, [0, 9], outputs=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_samples_of_a_singular_kernel_at_late_times(dtype):
    """What least squares says, from the start that gradient flow leaves where data say nothing."""
    rng = np.random.default_rng(1)
    inputs, targets, others, weights = (
        rng.normal(size=shape).astype(dtype) for shape in ((12, 6), (12, 2), (5, 6), (6, 2))
    )
    objective = tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, inputs, targets)
    predicted = tw.predicted_run(
        tw.GradientFlow(),
        objective,
        jnp.asarray(weights),
        [1e4, 1e8],
        inputs=others,
        outputs="mean",
    )
    best = others @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    assert predicted.others is not None
    for row in predicted.others:
        np.testing.assert_allclose(row, best, atol=tolerance)


def test_a_step_that_becomes_too_long_later():
    """Nesterov's momentum rises, so that a step is too long from some step on."""
    found = tw.kernels.modes(tw.kernels.empirical(OBJECTIVE, NETWORK).matrix())
    steepest = float(found.curvatures.max())
    optimizer = tw.Nesterov(1.45 / steepest)
    early = tw.predicted_run(optimizer, OBJECTIVE, NETWORK, [0, 5])
    assert early.status.kind == "completed"
    late = tw.predicted_run(optimizer, OBJECTIVE, NETWORK, [0, 300])
    assert late.status.kind == "diverged"
    assert f"below {4 / 3 / steepest:.6g}" in late.status.message


def test_cross_entropy_in_float32_by_default():
    single = jax.tree.map(lambda a: a.astype(jnp.float32), NETWORK)
    labels = jnp.asarray([0, 1, 1, 0, 1, 0])
    objective = tw.Objective(
        tw.networks.apply, tw.losses.cross_entropy, INPUTS.astype(np.float32), labels
    )
    predicted = tw.predicted_run(tw.GradientFlow(), objective, single, [0.0, 0.5])
    assert predicted.status.kind == "completed"
    assert predicted.outputs.dtype == jnp.float32
