"""Matrices are multiplied in full precision, also where a GPU would take a shorter format."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from tests.problems import in_parts
from thalweg._precision import jit
from thalweg._trees import tree_dot


def chosen():
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def objective_and_params():
    random = np.random.default_rng(0)
    inputs, targets = (jnp.asarray(random.normal(size=(6, n)), jnp.float32) for n in (3, 2))
    params = [jnp.asarray(random.normal(size=s), jnp.float32) for s in ((4, 3), (2, 4))]

    def predict(params, inputs):
        return jnp.tanh(inputs @ params[0].T) @ params[1].T

    return tw.Objective(predict, tw.losses.squared_error, inputs, targets), params


def precisions(function, *arguments):
    """The precisions of all products of matrices, as a GPU is asked for them."""
    traced = jax.jit(lambda *a: function(*a)).trace(*arguments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    return {re.findall(r"precision = \[(\w+), (\w+)\]", line)[0] for line in products}


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_derivatives_are_computed_in_full_precision(micro_batch):
    objective, params = objective_and_params()
    objective = tw.Objective(
        objective.predict,
        objective.loss,
        objective.inputs,
        objective.targets,
        reduction=in_parts(micro_batch),
    )
    cotangent = jnp.ones((6, 2), jnp.float32)
    vector = [jr.normal(jr.key(0), p.shape, p.dtype) for p in params]
    sample = objective.inputs[0]
    found = [
        precisions(objective.predictions, params),
        precisions(objective.value, params),
        precisions(objective.gradient, params),
        precisions(objective.hvp, params, vector),
        precisions(objective.gnvp, params, vector),
        precisions(objective.jvp, params, vector),
        precisions(objective.vjp, params, cotangent),
        precisions(objective.prediction, params, sample),
        precisions(jax.jacobian(lambda p: objective.prediction(p, sample)), params),
        precisions(tree_dot, params, params),
    ]
    assert set.union(*found) == {("HIGHEST", "HIGHEST")}


def test_whoever_sets_a_precision_gets_it():
    objective, params = objective_and_params()
    with jax.default_matmul_precision("tensorfloat32"):
        assert precisions(objective.gradient, params) == {("HIGH", "HIGH")}
    assert precisions(objective.gradient, params) == {("HIGHEST", "HIGHEST")}


def test_what_the_library_compiles_is_in_full_precision():
    seen = []

    @jit
    def product(a):
        seen.append(chosen())
        return a @ a

    product(jnp.eye(2))
    with jax.default_matmul_precision("bfloat16"):
        product(jnp.eye(2))
    assert seen == ["highest", "bfloat16"]
    assert chosen() is None


def test_the_library_compiles_in_no_other_way():
    folder = Path(tw.__file__).parent
    elsewhere = [
        path.name
        for path in folder.rglob("*.py")
        if path.name not in ("_precision.py", "_pickling.py")
        and re.search(r"filter_jit|@jax\.jit", path.read_text())
    ]
    assert elsewhere == []
