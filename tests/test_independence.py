"""Predictions that depend on other samples: refused where samples are split, right where not."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from tests.problems import in_parts, small_data

INPUTS, TARGETS = small_data(samples=8, outputs=1)
PARAMS = jnp.array([[0.3], [-0.4], [0.5]])


def batch_normalised(params, inputs):
    z = inputs @ params
    return jnp.tanh((z - z.mean(axis=0)) / z.std(axis=0))


def on_those_before(params, inputs):
    return jnp.cumsum(inputs @ params, axis=0)


def on_those_after(params, inputs):
    return jnp.cumsum((inputs @ params)[::-1], axis=0)[::-1]


def on_the_next(params, inputs):
    return inputs @ params + jnp.append(inputs[1:], inputs[-1:], axis=0) @ params


def in_pairs(params, inputs):
    z = inputs @ params
    return z + 0.1 * z[jnp.arange(len(z)) // 2 * 2]


def attending(params, inputs):
    """A layer of attention over the wrong axis."""
    z = inputs @ params
    return jax.nn.softmax(z @ z.T) @ z


MIXING = [batch_normalised, on_those_before, on_those_after, on_the_next, in_pairs, attending]
CHANGES = "prediction changes with the other samples.*whole_batch=True"


def objective_of(predict, loss=tw.losses.squared_error, **options):
    return tw.Objective(predict, loss, INPUTS, TARGETS, **options)


def test_samples_that_depend_on_others_are_not_split():
    objective = objective_of(batch_normalised, reduction=tw.objectives.MicroBatches(3))
    for way in (
        lambda: objective.value(PARAMS),
        lambda: objective.gradient(PARAMS),
        lambda: objective.predictions(PARAMS),
        lambda: objective.hvp(PARAMS, PARAMS),
        lambda: objective.gnvp(PARAMS, PARAMS),
        lambda: objective.jvp(PARAMS, PARAMS),
        lambda: objective.vjp(PARAMS, jnp.ones((8, 1))),
        lambda: objective.mean_gradient(PARAMS, PARAMS),
        lambda: objective.kink_pattern(PARAMS),
        lambda: jax.jit(objective.value)(PARAMS),
        lambda: eqx.filter_jit(lambda o, p: o.value(p))(objective, PARAMS),
        lambda: jax.vmap(objective.value)(PARAMS[None]),
        lambda: jax.grad(objective.value)(PARAMS),
        lambda: tw.extreme_eigenvalues(objective, PARAMS),
    ):
        with pytest.raises(ValueError, match=CHANGES):
            way()


@pytest.mark.parametrize("predict", MIXING)
def test_all_kinds_of_dependence_are_seen_while_jax_traces(predict):
    for micro_batch in (1, 3):
        with pytest.raises(ValueError, match=CHANGES):
            jax.jit(objective_of(predict, reduction=in_parts(micro_batch)).value)(PARAMS)
    with pytest.raises(ValueError, match=CHANGES):
        objective_of(predict).kink_pattern(PARAMS)


@pytest.mark.parametrize("predict", MIXING)
@pytest.mark.parametrize("samples", [2, 3])
def test_the_check_sees_all_kinds_of_dependence(predict, samples):
    for micro_batch in (None, 1):
        objective = tw.Objective(
            predict, tw.losses.squared_error, INPUTS[:samples], TARGETS[:samples],
            reduction=in_parts(micro_batch),
        )  # fmt: skip
        with pytest.raises(ValueError, match=CHANGES):
            objective.check(PARAMS)


def ranking(predictions, targets):
    """Every sample's loss is held against the mean."""
    return jnp.sum((predictions - predictions.mean(axis=0) - targets) ** 2, axis=1)


def plain(params, inputs):
    return inputs @ params


def test_losses_that_depend_on_other_samples():
    whole = np.mean(ranking(plain(PARAMS, INPUTS), TARGETS))
    assert float(objective_of(plain, ranking).value(PARAMS)) == pytest.approx(whole)
    assert float(objective_of(plain, ranking, whole_batch=True, params=PARAMS).value(PARAMS)) == (
        pytest.approx(whole)
    )
    split = objective_of(plain, ranking, reduction=tw.objectives.MicroBatches(2))
    for way in (split.value, jax.jit(split.value), split.gradient, split.check):
        with pytest.raises(ValueError, match="loss: a sample's loss changes with the other samp"):
            way(PARAMS)
    with pytest.raises(ValueError, match="loss: a sample's loss changes"):
        objective_of(plain, ranking, params=PARAMS)


def test_the_whole_batch_is_a_function_of_the_parameters():
    objective = objective_of(batch_normalised, whole_batch=True, params=PARAMS)
    v = jnp.array([1.0, 2.0, -1.0])

    def predictions(point):
        return batch_normalised(point[:, None], INPUTS)[:, 0]

    def value(point):
        return jnp.mean((predictions(point) - TARGETS[:, 0]) ** 2) / 2

    @jax.jit
    def both(point):
        params, w = point[:, None], v[:, None]
        jacobian = jax.jacfwd(predictions)(point)
        ours = {
            "value": objective.value(params),
            "gradient": objective.gradient(params)[:, 0],
            "hvp": objective.hvp(params, w)[:, 0],
            "jvp": objective.jvp(params, w)[:, 0],
            "gnvp": objective.gnvp(params, w)[:, 0],
        }
        return ours, {
            "value": value(point),
            "gradient": jax.grad(value)(point),
            "hvp": jax.hessian(value)(point) @ v,
            "jvp": jacobian @ v,
            "gnvp": jacobian.T @ jacobian @ v / 8,
        }

    ours, expected = both(PARAMS[:, 0])
    for product in ours:
        np.testing.assert_allclose(ours[product], expected[product], rtol=1e-11, atol=1e-14)


def test_what_the_whole_batch_has_not():
    with pytest.raises(ValueError, match=r"reduction: 4 samples .*whole_batch=True"):
        objective_of(batch_normalised, reduction=tw.objectives.MicroBatches(4), whole_batch=True)
    with pytest.raises(TypeError, match="whole_batch: expected True or False, got 1"):
        objective_of(batch_normalised, whole_batch=1)
    objective = objective_of(batch_normalised, whole_batch=True)
    drift = tw.kernels.KernelDrift()
    for way in (
        lambda o: o.kink_pattern(PARAMS),
        lambda o: o.prediction(PARAMS, jnp.ones(3)),
        lambda o: tw.kernels.empirical(o, PARAMS),
        lambda o: drift.initial(o, PARAMS),
    ):
        with pytest.raises(ValueError, match="nothing to be said about single samples"):
            way(objective)
        with pytest.raises(ValueError, match=CHANGES):
            way(objective_of(batch_normalised))


def test_kinks_behind_batch_normalisation():
    """The gradient is averaged over a segment as it is without."""

    def predict(params, inputs):
        z = inputs @ params[0]
        return jax.nn.relu((z - z.mean(axis=0)) / z.std(axis=0)) @ params[1]

    first = jr.normal(jr.key(0), (3, 2))
    # The first sample is on the kink of the first unit.
    apart = INPUTS[0] - INPUTS.mean(axis=0)
    first = first.at[:, 0].add(-apart * (apart @ first[:, 0]) / (apart @ apart))
    params = first, jr.normal(jr.key(1), (2, 1))
    objective = objective_of(predict, whole_batch=True, params=params)
    assert objective.kinks(params) == (True, True, 0)
    step = jax.tree.map(lambda p: 1e-3 * jr.normal(jr.key(3), p.shape), params)
    places = (jnp.arange(400) + 0.5) / 400 - 0.5

    @jax.jit
    def gradients():
        def there(s):
            return objective.gradient(jax.tree.map(lambda p, d: p + s * d, params, step))

        along = jax.vmap(there)(places)
        mean = jax.tree.map(lambda g: g.mean(axis=0), along)
        three = objective.gradient(params), objective.mean_gradient(params, step), mean
        return [ravel_pytree(g)[0] for g in three]

    here, ours, mean = gradients()
    assert jnp.linalg.norm(here - mean) > 1e-2, "a kink lies on the segment"
    assert jnp.linalg.norm(ours - mean) < 1e-3 * jnp.linalg.norm(here - mean)


def recurrent(params, inputs):
    """Over the entries of a sample."""

    def step(state, x):
        return jnp.tanh(state + x[:, None] * params[0]), None

    last, _ = jax.lax.scan(step, jnp.zeros((len(inputs), 1)), inputs.T)
    return last


def solving(params, inputs):
    """As many steps as the slowest sample needs."""

    def root(b):
        def unfinished(x):
            return jnp.abs(jnp.cos(x) + b - x) > 1e-14

        return jax.lax.while_loop(unfinished, lambda x: 0.5 * (x + jnp.cos(x) + b), jnp.zeros(()))

    return jax.vmap(root)(0.1 * jnp.tanh(inputs @ params)[:, 0])[:, None]


def in_logarithms(params, inputs):
    return jnp.sqrt(jnp.log(params[0]) * jnp.log(params[1])) * inputs[:, :1]


def chosen(params, inputs):
    return params[jnp.floor(jnp.abs(inputs[:, 0])).astype(int) % 3]


def normalised_by_itself(params, inputs):
    centred = inputs - inputs.mean(axis=1, keepdims=True)
    return centred / centred.std(axis=1, keepdims=True) @ params


@pytest.mark.parametrize(
    "predict", [plain, recurrent, solving, in_logarithms, chosen, normalised_by_itself]
)
def test_independent_samples_are_split(predict):
    params = jnp.array([[0.3], [0.4], [0.5]])
    split = objective_of(predict, reduction=tw.objectives.MicroBatches(3))
    split.check(params)
    whole = np.mean((np.asarray(predict(params, INPUTS)) - TARGETS) ** 2) / 2
    assert float(jax.jit(split.value)(params)) == pytest.approx(whole, rel=1e-12)


def test_samples_of_integers():
    tokens, table = np.array([[0, 2], [1, 1], [3, 0], [2, 2]]), jnp.arange(8.0).reshape(4, 2)
    options = {"loss": tw.losses.squared_error, "inputs": tokens, "targets": np.ones((4, 2))}
    whole, split = (
        tw.Objective(lambda p, t: p[t].sum(axis=1), reduction=in_parts(m), **options)
        for m in (None, 3)
    )
    assert float(jax.jit(split.value)(table)) == pytest.approx(float(whole.value(table)))
    mixed = tw.Objective(
        lambda p, t: p[t].sum(axis=(0, 1)) + p[t[:, 0]],
        reduction=tw.objectives.MicroBatches(3),
        **options,
    )
    with pytest.raises(ValueError, match=CHANGES):
        jax.jit(mixed.value)(table)


def test_it_is_tried_once():
    calls = []

    def predict(params, inputs):
        calls.append(len(inputs))
        return inputs @ params

    objective = objective_of(predict, reduction=tw.objectives.MicroBatches(4))
    objective.value(PARAMS)
    first, calls[:] = list(calls), []
    objective.value(2 * PARAMS)
    assert len(first) == len(calls) + 2, "all of a few samples and some of them"
    assert max(first) <= 4


def test_what_cannot_be_tried_is_refused():
    def never_finite(params, inputs):
        return jnp.log(-1 - jnp.abs(inputs @ params))

    objective = objective_of(never_finite, reduction=tw.objectives.MicroBatches(4))
    with pytest.raises(ValueError, match=r"predict: not finite on random numbers.*micro-batches"):
        jax.jit(objective.value)(PARAMS)

    def value(shift, micro_batch):
        return objective_of(lambda p, x: x @ p + shift, reduction=in_parts(micro_batch)).value(
            PARAMS
        )

    assert float(jax.jit(value, static_argnums=1)(0.0, None)) == pytest.approx(
        float(objective_of(plain).value(PARAMS))
    )
    with pytest.raises(ValueError, match="predict: holds values that JAX is tracing"):
        jax.jit(value, static_argnums=1)(0.0, 4)


def test_a_loss_with_arrays_of_its_own():
    class Weighted(eqx.Module):
        weights: jax.Array

        def __call__(self, predictions, targets):
            return (predictions - targets) ** 2 @ self.weights

    loss = Weighted(jnp.array([2.0]))
    whole, split = (
        objective_of(plain, loss),
        objective_of(plain, loss, reduction=tw.objectives.MicroBatches(3)),
    )
    found = eqx.filter_jit(lambda o, p: o.value(p))(split, PARAMS)
    assert float(found) == pytest.approx(float(whole.value(PARAMS)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype):
    params = PARAMS.astype(dtype)
    objective = objective_of(plain)
    refused = rf"params: {jnp.dtype(dtype).name} has too few digits .*use float32"
    for way in (
        objective.check,
        lambda p: tw.descend(tw.GradientDescent(0.1), objective, p, 1),
        lambda p: tw.integrate(tw.GradientFlow(), objective, p, t1=1.0),
    ):
        with pytest.raises(TypeError, match=refused):
            way(params)

    def rounded(p, x):
        return (x @ p).astype(dtype)

    for predict, loss, field in (
        (rounded, tw.losses.squared_error, "predict"),
        (plain, lambda z, y: ((z - y) ** 2).sum(axis=1).astype(dtype), "loss"),
    ):
        with pytest.raises(TypeError, match=f"{field}: .*too few digits"):
            dataclasses.replace(
                objective, predict=predict, loss=loss, targets=jnp.asarray(TARGETS, dtype)
            ).check(PARAMS)


@pytest.mark.parametrize("dtype", [complex, int])
def test_other_numbers(dtype):
    with pytest.raises(TypeError, match="params: expected an array of floating-point numbers"):
        objective_of(plain).check(PARAMS.astype(dtype))
