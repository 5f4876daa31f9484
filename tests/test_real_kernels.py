"""Kernels of real networks against dense Jacobians, as operators and within a budget."""

import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import pytest

import thalweg as tw
from thalweg.kernels._empirical import factors

from . import problems

LAW = tw.networks.TangentKernel(1.2, 0.3)
NETWORKS = {
    "dense": tw.networks.fully_connected([5, 6, 4, 3], init=LAW, key=jr.key(0)),
    "pooled": tw.networks.convolutional(
        (2, 8), channels=(3, 4), kernel=3, padding=1, pool=2, widths=(5,), outputs=3, key=jr.key(1)
    ),
    "average": tw.networks.convolutional(
        (2, 5, 4), channels=(3, 4), kernel=3, stride=2, padding=1, head="average", bias=True,
        outputs=2, activation="tanh", init=LAW, key=jr.key(2),
    ),
    "two layers": tw.networks.two_layer(5, 12, key=jr.key(3)),
}  # fmt: skip
SHAPES = {"dense": (5,), "pooled": (2, 8), "average": (2, 5, 4), "two layers": (5,)}


def problem(name, samples=7):
    network = NETWORKS[name]
    inputs = np.random.default_rng(0).normal(size=(samples, *SHAPES[name]))
    targets = np.zeros(jax.eval_shape(tw.networks.apply, network, inputs).shape)
    objective = tw.Objective(
        tw.networks.apply,
        tw.losses.squared_error,
        inputs,
        targets,
        reduction=tw.objectives.MicroBatches(3),
    )
    return objective, network


def dense_jacobian(objective, params, inputs):
    """Shape `(samples, outputs, parameters)`."""
    rows = jax.jit(jax.jacrev(lambda p: objective.predict(p, inputs).reshape(len(inputs), -1)))
    leaves = jax.tree.leaves(rows(params))
    return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)


@pytest.mark.parametrize("name", NETWORKS)
def test_against_dense_jacobians(name):
    objective, network = problem(name)
    others = np.random.default_rng(1).normal(size=(3, *SHAPES[name]))
    rows, columns = (dense_jacobian(objective, network, x) for x in (others, objective.inputs))
    square = np.einsum("aip,bjp->aibj", columns, columns)
    kernel = tw.kernels.empirical(objective, network)
    outputs = square.shape[1]
    expected = {
        "all": square,
        "each": np.einsum("aibi->iab", square),
        "mean": np.einsum("aibi->ab", square) / outputs,
    }
    scale = np.abs(square).max()
    for which, matrix in expected.items():
        np.testing.assert_allclose(kernel.matrix(which), matrix, atol=1e-13 * scale)
    # In pieces, for a budget that leaves room for little beside the result.
    pieces = kernel.matrix("all", memory=square.nbytes + 40_000)
    np.testing.assert_allclose(pieces, square, atol=1e-13 * scale)
    flat = pieces.reshape(square.shape[0] * outputs, -1)
    np.testing.assert_array_equal(flat, flat.T)
    values = np.random.default_rng(2).normal(size=kernel.shape)
    product = np.einsum("aibj,bj->ai", square, values.reshape(7, -1))
    np.testing.assert_allclose((kernel @ values).reshape(7, -1), product, atol=1e-12 * scale)
    cross = tw.kernels.empirical(objective, network, inputs=others)
    expected = np.einsum("aip,bjp->aibj", rows, columns)
    np.testing.assert_allclose(cross.matrix(), expected, atol=1e-13 * scale)


def test_a_function_of_ones_own():
    objective, params = problems.small_objective()
    jacobian = dense_jacobian(objective, params, objective.inputs)
    kernel = tw.kernels.empirical(objective, params).matrix()
    np.testing.assert_allclose(kernel, np.einsum("aip,bjp->aibj", jacobian, jacobian), atol=1e-13)


def test_systems_are_solved_by_lineax():
    objective, network = problem("dense", samples=4)
    operator = tw.kernels.empirical(objective, network).operator
    right = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    found = lx.linear_solve(operator, right, lx.CG(rtol=1e-10, atol=1e-10, max_steps=500)).value
    np.testing.assert_allclose(operator.mv(found), right, atol=1e-7)
    cross = tw.kernels.empirical(objective, network, inputs=objective.inputs)
    with pytest.raises(ValueError, match="no operator"):
        cross.operator  # noqa: B018


def test_a_budget_too_small():
    objective, network = problem("dense")
    kernel = tw.kernels.empirical(objective, network)
    with pytest.raises(ValueError, match=r"memory: 1,000 bytes, but it takes .* 3,528 of them"):
        kernel.matrix(memory=1000)
    with pytest.raises(ValueError, match="expected all, each or mean"):
        kernel.matrix("trace")
    with pytest.raises(ValueError, match="inputs: samples of shape"):
        tw.kernels.empirical(objective, network, inputs=np.ones((2, 4)))


def test_modes():
    rng = np.random.default_rng(0)
    roots = {"all": rng.normal(size=(12, 12)), "mean": rng.normal(size=(6, 6))}
    root = rng.normal(size=(2, 6, 6))
    kernels = {
        4: (roots["all"] @ roots["all"].T).reshape(6, 2, 6, 2),
        3: root @ np.swapaxes(root, 1, 2),
        2: roots["mean"] @ roots["mean"].T,
    }
    values = rng.normal(size=(6, 2))
    applied = {
        4: np.einsum("aibj,bj->ai", kernels[4], values),
        3: np.einsum("iab,bi->ai", kernels[3], values),
        2: kernels[2] @ values,
    }
    for ndim, kernel in kernels.items():
        found = tw.kernels.modes(kernel)
        parts = found.amplitudes(jnp.asarray(values))
        np.testing.assert_allclose(found.values(parts, values.shape), values, atol=1e-12)
        again = found.values(found.stacked[..., None] * parts, values.shape)
        np.testing.assert_allclose(again, applied[ndim], atol=1e-10)
        np.testing.assert_allclose(found.onto(kernel, parts, values.shape), again, atol=1e-10)
    shared = tw.kernels.modes(kernels[2])
    eigenvalues = np.linalg.eigvalsh(kernels[2])
    assert shared.condition == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-6)
    both = values @ values.T
    expected = np.sum(kernels[2] * both) / np.linalg.norm(kernels[2]) / np.linalg.norm(both)
    assert shared.alignment(values) == pytest.approx(expected, rel=1e-10)
    full = tw.kernels.modes(kernels[4])
    y = values.ravel()
    matrix = kernels[4].reshape(12, 12)
    expected = y @ matrix @ y / (y @ y) / np.linalg.norm(matrix)
    assert full.alignment(values) == pytest.approx(expected, rel=1e-10)


def test_bad_kernels():
    with pytest.raises(ValueError, match="not symmetric"):
        tw.kernels.modes(np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="eigenvalue -1, far below zero"):
        tw.kernels.modes(np.array([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="square"):
        tw.kernels.modes(np.ones((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        tw.kernels.modes(np.full((2, 2), np.nan))


def test_drift():
    objective, network = problem("dense")
    run = tw.descend(tw.GradientDescent(0.5), objective, network, 4, 2)
    drift = tw.observe(run, drift=tw.kernels.KernelDrift(5)).observables["drift"]
    chosen = objective.inputs[np.array([0, 2, 3, 4, 6])]
    kernels = []
    for i in range(3):
        params = jax.tree.map(lambda x, i=i: x[i], run.params)
        jacobian = dense_jacobian(objective, params, chosen)
        kernels.append(np.einsum("aip,bjp->aibj", jacobian, jacobian))
    expected = [np.linalg.norm(k - kernels[0]) / np.linalg.norm(kernels[0]) for k in kernels]
    np.testing.assert_allclose(drift, expected, rtol=1e-10, atol=1e-14)
    assert drift[2] > 0.01


def test_an_operator_survives_the_journey_through_a_tree():
    network = tw.networks.fully_connected([2, 3, 1], key=jr.key(0))
    objective = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, jnp.ones((2, 2)), jnp.ones((2, 1))
    )
    kernel = jax.tree.map(lambda a: a, tw.kernels.empirical(objective, network))
    assert kernel.operator.out_size() == 2
    with pytest.raises(ValueError, match="the kernel acts on predictions"):
        _ = kernel @ jnp.ones((3, 1))
    other = tw.kernels.empirical(objective, network, inputs=jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="different samples"):
        _ = other.operator


def test_convolutions_keep_a_budget():
    """What differentiating them takes is counted, by the compiler."""
    network = tw.networks.convolutional(
        (1, 16, 16), channels=(8, 8), kernel=3, padding=1, head="average", outputs=3, key=jr.key(0)
    )
    objective = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, jnp.ones((8, 1, 16, 16)), jnp.ones((8, 3))
    )
    kernel = tw.kernels.empirical(objective, network)
    whole = kernel.matrix("mean")
    lowered = jax.jit(lambda params, inputs: factors(params, objective, inputs)).lower(
        network, objective.inputs
    )
    needed = lowered.compile().memory_analysis().temp_size_in_bytes
    assert kernel._block_size(needed // 2, whole.nbytes, 3, "mean") < 8
    np.testing.assert_allclose(kernel.matrix("mean", memory=needed // 2), whole, rtol=1e-12)
    with pytest.raises(ValueError, match="memory"):
        kernel.matrix("mean", memory=needed // 20)
