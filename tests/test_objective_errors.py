"""What an objective refuses, at construction and when it is asked."""

import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from tests.problems import random_weights, small_data, small_objective, tanh_network


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": np.zeros((0, 3))}, ValueError, r"inputs: .*no samples"),
        ({"inputs": np.array(1.0)}, ValueError, r"inputs: .*no samples"),
        ({"targets": np.zeros((12, 0))}, ValueError, r"targets: .*no samples"),
        ({"targets": np.zeros((11, 2))}, ValueError, r"targets: 11 .*inputs has 12"),
        ({"inputs": "pixels"}, TypeError, r"inputs: expected an array, got str"),
        ({"inputs": np.ones((12, 3), complex)}, TypeError, r"inputs: complex numbers"),
        ({"targets": np.ones((12, 2), complex)}, TypeError, r"targets: complex numbers"),
        ({"targets": None}, (TypeError, ValueError), r"targets"),
        ({"predict": 3}, TypeError, r"predict: expected a function, got int"),
        ({"loss": "squared_error"}, TypeError, r"loss: expected a function, got str"),
        ({"reduction": 50}, TypeError, r"reduction: expected a reduction, got int"),
        ({"reduction": tw.objectives.MicroBatches}, TypeError, r"got the class MicroBatches"),
    ],
)
def test_construction_refuses(change, error, message):
    inputs, targets = small_data()
    arguments = {
        "predict": tanh_network, "loss": tw.losses.squared_error,
        "inputs": inputs, "targets": targets, **change,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        tw.Objective(**arguments)


@pytest.mark.parametrize("field", ["inputs", "targets"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_are_not_finite(field, bad):
    data = dict(zip(("inputs", "targets"), small_data(), strict=True))
    data[field][4, 1] = bad
    with pytest.raises(ValueError, match=rf"{field}: NaN or infinity, first at index \(4, 1\)"):
        tw.Objective(tanh_network, tw.losses.squared_error, **data)


def no_arrays(params, inputs):
    return [inputs @ params]


def one_number(params, inputs):
    return jnp.sum(inputs @ params)


def one_sample_short(params, inputs):
    return (inputs @ params)[1:]


def not_a_number(params, inputs):
    return jnp.log(-jnp.abs(inputs @ params) - 1)


def overflowing(params, inputs):
    return jnp.exp(1e6 * jnp.abs(inputs @ params) + 1e6)


def batch_normalised(params, inputs):
    z = inputs @ params
    return (z - z.mean(axis=0)) / z.std(axis=0)


COUNTER = itertools.count()


def random(params, inputs):
    return inputs @ params + jr.normal(jr.key(next(COUNTER)), (len(inputs), 1))


def labels_only(params, inputs):
    return jnp.argmax(inputs @ params, axis=1, keepdims=True)


def two_columns(params, inputs):
    return jnp.concatenate([inputs @ params] * 2, axis=1)


@pytest.mark.parametrize(
    ("predict", "error", "message"),
    [
        (no_arrays, TypeError, r"predict: expected one array, got list"),
        (one_number, ValueError, r"predict: returned shape \(\) for 12 samples"),
        (one_sample_short, ValueError, r"predict: returned shape \(11, 1\) for 12 samples"),
        (not_a_number, ValueError, r"predict: returned NaN or infinity"),
        (overflowing, ValueError, r"predict: returned NaN or infinity"),
        (labels_only, TypeError, r"predict: expected real floating-point .*int"),
        (random, ValueError, r"predict: two calls .*differ"),
        (batch_normalised, ValueError, r"predict: .*changes with the other samples"),
        (two_columns, ValueError, r"targets: shape \(12, 1\) does not fit predictions .*\(12, 2\)"),
    ],
)
def test_check_refuses_predictions(predict, error, message):
    inputs, targets = small_data(outputs=1)
    params = jnp.array([[0.3], [-0.4], [0.5]])
    with pytest.raises(error, match=message):
        tw.Objective(predict, tw.losses.squared_error, inputs, targets, params=params)
    objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
    with pytest.raises(error, match=message):
        objective.check(params)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"a": np.array([[np.nan], [0.0], [0.0]])}, ValueError, r"params\['a'\]: .*NaN"),
        ({"a": np.zeros((3, 1), int)}, TypeError, r"params\['a'\]: .*int"),
        ({"a": np.zeros((3, 1)), "b": 1.0}, TypeError, r"params\['b'\]: .*float"),
        ({"a": np.zeros((3, 1)), "b": jnp.tanh}, TypeError, r"params\['b'\]: .*partition"),
        ({}, ValueError, r"params: holds no numbers"),
        ({"a": np.zeros((0, 1))}, ValueError, r"params: holds no numbers"),
    ],
)
def test_check_refuses_parameters(params, error, message):
    inputs, targets = small_data(outputs=1)
    objective = tw.Objective(lambda p, x: x @ p["a"], tw.losses.squared_error, inputs, targets)
    objective.check({"a": np.zeros((3, 1))})
    with pytest.raises(error, match=message):
        objective.check(params)


def test_check_refuses_losses():
    inputs, targets = small_data(outputs=1)
    params = jnp.ones((3, 1))

    def linear(p, x):
        return x @ p

    with pytest.raises(ValueError, match=r"loss: returned shape \(\); .*\(12,\)"):
        tw.Objective(linear, lambda z, y: jnp.mean((z - y) ** 2), inputs, targets, params=params)
    with pytest.raises(ValueError, match="loss: NaN or infinity"):
        tw.Objective(
            linear, lambda z, y: jnp.log(-jnp.abs(z[:, 0])), inputs, targets, params=params
        )
    with pytest.raises(ValueError, match="labels run from 0 to 11, but the network has 1 outputs"):
        tw.Objective(linear, tw.losses.cross_entropy, inputs, np.arange(12), params=params)


def test_a_loss_of_the_wrong_shape_is_refused_without_check():
    inputs, targets = small_data(outputs=1)
    objective = tw.Objective(lambda p, x: x @ p, lambda z, y: jnp.mean(z - y), inputs, targets)
    for ask in (objective.value, objective.gradient):
        with pytest.raises(ValueError, match=r"loss: returned shape \(\)"):
            ask(jnp.ones((3, 1)))


def test_predictions_and_targets_never_broadcast():
    inputs, targets = small_data(outputs=1)
    objective = tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, inputs, targets[:, 0])
    with pytest.raises(ValueError, match=r"targets: .*\(12,\) does not fit"):
        objective.value(jnp.ones((3, 1)))


@pytest.mark.parametrize("shape", [(11, 2), (1, 2), ()])
def test_cotangents_have_a_row_for_every_sample(shape):
    objective, params = small_objective()
    with pytest.raises(ValueError, match=r"cotangent: shape .* does not fit 12 samples"):
        objective.vjp(params, jnp.ones(shape))


def test_the_check_keeps_to_the_micro_batch():
    seen = []

    def predict(params, inputs):
        seen.append(len(inputs))
        return tanh_network(params, inputs)

    inputs, targets = small_data()
    tw.Objective(
        predict, tw.losses.squared_error, inputs, targets,
        reduction=tw.objectives.MicroBatches(np.int64(4)), params=random_weights((3, 5, 2)),
    )  # fmt: skip
    assert max(seen) <= 4


def test_a_function_of_one_sample_is_told_from_one_of_all():
    weight = jnp.ones((2, 3))
    with pytest.raises(TypeError, match=r"inputs of shape \(4, 3\): .* use jax.vmap"):
        tw.Objective(
            lambda p, x: p @ x,
            tw.losses.squared_error,
            jnp.ones((4, 3)),
            jnp.ones((4, 2)),
            params=weight,
        )
