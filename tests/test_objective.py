"""Every product of an objective against dense float64 derivatives, closed forms and differences.

The oracle flattens the parameters and differentiates its own, unsplit mean over samples densely.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from tests.problems import small_data, small_objective, tanh_network


def predict(params, inputs):
    """A network with parameters in a nested structure."""
    hidden = jnp.tanh(inputs @ params["hidden"]["weight"] + params["hidden"]["bias"])
    return hidden @ params["out"]


def nested_params(dtype=float):
    rng = np.random.default_rng(7)
    shapes = {"hidden": {"weight": (3, 4), "bias": (4,)}, "out": (4, 2)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def problem(loss="squared_error", micro_batch=None, dtype=float):
    inputs, targets = small_data()
    targets = np.arange(12) % 2 if loss == "cross_entropy" else jnp.asarray(targets, dtype)
    return tw.Objective(
        predict, getattr(tw.losses, loss), jnp.asarray(inputs, dtype), targets,
        micro_batch=micro_batch,
    )  # fmt: skip


def direction(params, seed=3):
    flat, unravel = ravel_pytree(params)
    return unravel(jr.normal(jr.key(seed), flat.shape, flat.dtype))


def cotangent(objective, params):
    predictions = objective.predictions(params)
    return jr.normal(jr.key(5), predictions.shape, predictions.dtype)


@eqx.filter_jit
def every_product(objective, params):
    v, c = direction(params), cotangent(objective, params)
    return {
        "predictions": objective.predictions(params),
        "value": objective.value(params),
        "gradient": objective.gradient(params),
        "value_and_gradient": objective.value_and_gradient(params),
        "hvp": objective.hvp(params, v),
        "gnvp": objective.gnvp(params, v),
        "jvp": objective.jvp(params, v),
        "vjp": objective.vjp(params, c),
    }


@eqx.filter_jit
def dense_derivatives(objective, params):
    """Value, gradient, Hessian and Jacobian as dense arrays over the flattened parameters."""
    point, unravel = ravel_pytree(params)
    inputs, targets, loss = objective.inputs, objective.targets, objective.loss

    def predictions(point):
        return objective.predict(unravel(point), inputs)

    def value(point):
        return jnp.mean(loss(predictions(point), targets))

    z = predictions(point)
    jacobian = jax.jacfwd(predictions)(point).reshape(z.size, point.size)
    curvature = jax.hessian(lambda z: jnp.mean(loss(z, targets)))(z).reshape(z.size, z.size)
    return {
        "predictions": z,
        "value": value(point),
        "gradient": jax.grad(value)(point),
        "hessian": jax.hessian(value)(point),
        "jacobian": jacobian,
        "gauss_newton": jacobian.T @ curvature @ jacobian,
    }


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("micro_batch", [None, 5])
def test_products_against_dense_derivatives(loss, micro_batch):
    objective, params = problem(loss, micro_batch), nested_params()
    dense = dense_derivatives(objective, params)
    v, c = flat(direction(params)), flat(cotangent(objective, params))
    expected = {
        "predictions": dense["predictions"],
        "value": dense["value"],
        "gradient": dense["gradient"],
        "value_and_gradient": np.append(dense["value"], dense["gradient"]),
        "hvp": dense["hessian"] @ v,
        "gnvp": dense["gauss_newton"] @ v,
        "jvp": dense["jacobian"] @ v,
        "vjp": dense["jacobian"].T @ c,
    }
    for product, ours in every_product(objective, params).items():
        np.testing.assert_allclose(
            flat(ours), flat(expected[product]), rtol=1e-11, atol=1e-12, err_msg=product
        )
    assert objective.jvp(params, direction(params)).shape == dense["predictions"].shape
    assert np.abs(dense["hessian"] - dense["gauss_newton"]).max() > 1e-3, "the network is curved"
    assert objective.samples == 12


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 11, 12, 100])
def test_micro_batches_change_nothing(micro_batch):
    params = nested_params()
    whole = every_product(problem(), params)
    split = every_product(problem(micro_batch=micro_batch), params)
    assert jax.tree.structure(split) == jax.tree.structure(whole)
    for product in whole:
        np.testing.assert_allclose(
            flat(split[product]), flat(whole[product]), rtol=1e-12, atol=1e-13, err_msg=product
        )


@pytest.mark.parametrize("micro_batch", [None, 4, 5])
def test_dtype_is_kept(micro_batch):
    objective = problem(micro_batch=micro_batch, dtype=jnp.float32)
    results = every_product(objective, nested_params(jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype("float32")}


def temporary_bytes(samples, micro_batch):
    network = tw.networks.fully_connected([8, 64, 1], key=jr.key(0))
    inputs = np.ones((samples, 8))
    objective = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, inputs, inputs[:, :1], micro_batch=micro_batch
    )
    # A Hessian-vector product holds on to everything that a gradient does, and to its derivative.
    compiled = jax.jit(lambda o, p: o.hvp(p, p)).lower(objective, network).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_micro_batches_bound_the_memory():
    activations_of_one_layer = 4000 * 64 * 8
    data = 4000 * (8 + 1) * 8
    whole, split = temporary_bytes(4000, None), temporary_bytes(4000, 100)
    assert whole > activations_of_one_layer
    assert split < activations_of_one_layer / 8
    # Twice the samples: at most another copy of the data, split into micro-batches.
    assert temporary_bytes(8000, 100) - split <= data


def test_finite_differences():
    objective, params = problem("cross_entropy", 5), nested_params()
    v, h = direction(params), 1e-5

    def at(step):
        return jax.tree.map(lambda p, d: p + step * d, params, v)

    def difference(function):
        ahead, behind = flat(function(at(h))), flat(function(at(-h)))
        return (ahead - behind) / (2 * h)

    slope = flat(objective.gradient(params)) @ flat(v)
    assert difference(objective.value)[0] == pytest.approx(slope, rel=1e-8)
    np.testing.assert_allclose(
        difference(objective.gradient), flat(objective.hvp(params, v)), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        difference(objective.predictions), objective.jvp(params, v).ravel(), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("micro_batch", [None, 4, 7])
def test_linear_least_squares(micro_batch):
    """f = |X w - y|^2 / (2 N): everything is known in closed form."""
    rng = np.random.default_rng(2)
    x, y, w, v = rng.normal(size=(12, 4)), rng.normal(size=12), *rng.normal(size=(2, 4))
    objective = tw.Objective(
        lambda p, inputs: inputs @ p, tw.losses.squared_error, x, y, micro_batch=micro_batch
    )
    params = jnp.asarray(w)
    residual = x @ w - y
    np.testing.assert_allclose(objective.value(params), residual @ residual / 24, rtol=1e-13)
    np.testing.assert_allclose(objective.gradient(params), x.T @ residual / 12, rtol=1e-12)
    for product in (objective.hvp, objective.gnvp):
        np.testing.assert_allclose(product(params, jnp.asarray(v)), x.T @ (x @ v) / 12, rtol=1e-12)
    np.testing.assert_allclose(objective.jvp(params, jnp.asarray(v)), x @ v, rtol=1e-12)
    np.testing.assert_allclose(objective.vjp(params, jnp.asarray(y)), x.T @ y, rtol=1e-12)


def test_products_are_linear_symmetric_and_transposed():
    objective, params = problem("cross_entropy", 5), nested_params()
    a, b = direction(params, 1), direction(params, 2)
    for product in (jax.jit(objective.hvp), jax.jit(objective.gnvp)):
        left, right = flat(a) @ flat(product(params, b)), flat(b) @ flat(product(params, a))
        assert left == pytest.approx(right, rel=1e-12)
    assert flat(a) @ flat(objective.gnvp(params, a)) > 0
    c = cotangent(objective, params)
    left = float(jnp.vdot(c, objective.jvp(params, a)))
    assert left == pytest.approx(flat(objective.vjp(params, c)) @ flat(a), rel=1e-12)


@pytest.mark.parametrize("micro_batch", [None, 2, 5])
def test_predictions_of_any_shape(micro_batch):
    inputs = np.random.default_rng(0).normal(size=(6, 3))
    targets = np.zeros((6, 3, 2))
    objective = tw.Objective(
        lambda p, x: jnp.sin(x[:, :, None] * p), tw.losses.squared_error, inputs, targets,
        micro_batch=micro_batch, params=jnp.array([1.0, 2.0]),
    )  # fmt: skip
    params = jnp.array([1.0, 2.0])
    expected = np.sin(inputs[:, :, None] * np.array([1.0, 2.0]))
    np.testing.assert_allclose(objective.predictions(params), expected, rtol=1e-12)
    assert objective.value(params) == pytest.approx((expected**2).sum() / 12, rel=1e-12)
    slopes = np.cos(inputs[:, :, None] * np.array([1.0, 2.0])) * inputs[:, :, None]
    np.testing.assert_allclose(objective.vjp(params, jnp.ones((6, 3, 2))), slopes.sum((0, 1)))
    np.testing.assert_allclose(objective.jvp(params, jnp.array([0.0, 1.0]))[..., 1], slopes[..., 1])


def test_a_plain_function_is_a_loss():
    inputs, targets = small_data()
    objective = tw.Objective(
        predict, lambda z, y: jnp.abs(z - y).sum(axis=1), inputs, targets, params=nested_params()
    )
    residual = np.asarray(objective.predictions(nested_params())) - targets
    np.testing.assert_allclose(objective.value(nested_params()), np.abs(residual).sum() / 12)


def test_an_objective_travels_through_jit_as_an_argument():
    traces = []

    @eqx.filter_jit
    def value(objective, params):
        traces.append(1)
        return objective.value(params)

    objective, params = small_objective()
    other = dataclasses.replace(objective, inputs=2 * objective.inputs)
    assert float(value(objective, params)) == pytest.approx(float(objective.value(params)))
    assert float(value(other, params)) == pytest.approx(float(other.value(params)))
    assert len(traces) == 1, "data are arguments, not constants of the compiled function"
    assert float(jax.jit(objective.value)(params)) == pytest.approx(float(objective.value(params)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": np.zeros((0, 3))}, ValueError, r"inputs: .*no samples"),
        ({"inputs": np.array(1.0)}, ValueError, r"inputs: .*no samples"),
        ({"targets": np.zeros((12, 0))}, ValueError, r"targets: .*no samples"),
        ({"targets": np.zeros((11, 2))}, ValueError, r"targets: 11 .*inputs has 12"),
        ({"inputs": "pixels"}, TypeError, r"inputs: expected an array, got str"),
        ({"targets": None}, (TypeError, ValueError), r"targets"),
        ({"predict": 3}, TypeError, r"predict: expected a function, got int"),
        ({"loss": "squared_error"}, TypeError, r"loss: expected a function, got str"),
        ({"micro_batch": 0}, ValueError, r"micro_batch: .*got 0"),
        ({"micro_batch": -4}, ValueError, r"micro_batch: .*got -4"),
        ({"micro_batch": 2.5}, ValueError, r"micro_batch: .*got 2.5"),
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


def test_one_sample_is_enough():
    objective = tw.Objective(
        lambda p, x: x @ p, tw.losses.squared_error, [[1.0, 2.0]], [3.0], params=jnp.ones(2)
    )
    assert objective.samples == 1
    assert float(objective.value(jnp.zeros(2))) == 4.5
