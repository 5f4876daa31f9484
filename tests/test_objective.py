"""Every product of an objective against dense float64 derivatives, closed forms and differences.

The oracle flattens the parameters and differentiates its own, unsplit mean over samples densely.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from tests.problems import in_parts, small_data, small_objective


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
        reduction=in_parts(micro_batch),
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
        tw.networks.apply,
        tw.losses.squared_error,
        inputs,
        inputs[:, :1],
        reduction=in_parts(micro_batch),
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
        lambda p, inputs: inputs @ p, tw.losses.squared_error, x, y, reduction=in_parts(micro_batch)
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
        reduction=in_parts(micro_batch), params=jnp.array([1.0, 2.0]),
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


def test_one_sample_is_enough():
    objective = tw.Objective(
        lambda p, x: x @ p, tw.losses.squared_error, [[1.0, 2.0]], [3.0], params=jnp.ones(2)
    )
    assert objective.samples == 1
    assert float(objective.value(jnp.zeros(2))) == 4.5
