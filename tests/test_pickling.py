"""Everything that the library returns goes through pickle and comes back the same, bit for bit."""

import concurrent.futures
import copy
import dataclasses
import multiprocessing
import pickle
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import thalweg as tw
from tests.problems import small_data

# Functions as users have them in a module of their own.


@jax.jit
def compiled_network(params, inputs):
    return jnp.tanh(inputs @ params)


@eqx.filter_jit
def filtered_network(params, inputs):
    return jnp.tanh(inputs @ params)


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if isinstance(x, jax.Array):
            assert (x.dtype, x.shape, x.weak_type) == (y.dtype, y.shape, y.weak_type)
        if isinstance(x, tw.until.GradientNorm):
            assert vars(x) == vars(y)
        else:
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def is_the_same(thing):
    for back in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
        assert type(back) is type(thing)
        same_bits(thing, back)


def problem(activation="softplus"):
    network = tw.networks.fully_connected([3, 4, 2], activation=activation, key=jr.key(0))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, *small_data())
    return objective, network


@pytest.mark.parametrize("name", tw.networks.ACTIVATIONS)
def test_activations_are_themselves(name):
    """An equal one would do for the compiler; the same one cannot be compiled for again."""
    activation = tw.networks.ACTIVATIONS[name]
    _, network = problem(name)
    is_the_same(network)
    for back in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert back.activation == activation
        assert hash(back.activation) == hash(activation)
        if name != "leaky_relu":
            assert back.activation is activation
    assert copy.copy(activation) == activation


@pytest.mark.parametrize(
    "function", [jnp.tanh, jnp.sin, jax.nn.relu, jax.nn.silu, jax.nn.gelu, jax.nn.softplus]
)
def test_functions_of_jax_are_found_by_their_name(function):
    _, network = problem(function)
    is_the_same(network)
    for back in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert back.activation.function is function


@pytest.mark.parametrize("predict", [compiled_network, filtered_network])
def test_compiled_functions_of_users_are_found_by_their_name(predict):
    inputs, targets = small_data()
    objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
    is_the_same(objective)
    for back in (pickle.loads(pickle.dumps(objective)), copy.deepcopy(objective)):
        assert back.predict is predict


def test_functions_without_a_name_are_left_to_python():
    inputs, targets = small_data()
    objective = tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, inputs, targets)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(objective)

    # `compiled_network` is somebody else's name.
    def impostor(params, inputs):
        return inputs @ params

    impostor.__qualname__ = "compiled_network"
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(tw.Objective(jax.jit(impostor), tw.losses.squared_error, inputs, targets))
    assert copy.deepcopy(objective).predict is objective.predict


def test_nothing_is_compiled_again():
    traces = []

    @eqx.filter_jit
    def value(objective, params):
        traces.append(1)
        return objective.value(params)

    objective, network = problem("tanh")
    before = value(objective, network)
    for carry in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        assert value(*carry((objective, network))) == before
    assert len(traces) == 1


DYNAMICS = [
    tw.GradientDescent(0.1),
    tw.HeavyBall(0.01, 0.9),
    tw.Nesterov(0.01),
    tw.NesterovConstant(jnp.asarray(0.01), 0.9),
    tw.HigherMomentum(0.01, 0.7, 0.2),
    tw.GradientFlow(),
    tw.HeavyBallFlow(1.0),
    tw.NesterovFlow(),
    tw.linear_networks.EndToEndFlow(3),
    tw.losses.squared_error,
    tw.losses.cross_entropy,
    tw.until.gradient_norm(1e-6),
    tw.solvers.RKC2(),
    tw.solvers.RKC4(),
    tw.solvers.AveragedMidpoint(),
    tw.kernels.KernelDrift(),
    tw.observables.ActivationFlips(),
    tw.observables.SlidingPairs(0.1),
    *tw.networks.INITIALISATIONS.values(),
]


@pytest.mark.parametrize("thing", DYNAMICS, ids=lambda thing: type(thing).__name__)
def test_dynamics_and_other_declarations(thing):
    is_the_same(thing)


def test_optax_transformations_are_closures_which_python_cannot_pickle():
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(tw.Optax(optax.adam(1e-3)))


def test_an_error_of_a_store():
    error = tw.study.StoreError("is damaged", Path("out"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path) == (str(error), error.path)


@pytest.fixture(scope="module")
def run():
    objective, network = problem()
    return tw.descend(tw.GradientDescent(0.1), objective, network, 20, save_every=10)


def test_trajectories_and_comparisons(run):
    flow = dataclasses.replace(
        run, dynamics=tw.GradientFlow(), error=jnp.full(3, 1e-3), steps=None, objective=None
    )
    is_the_same([run, flow, tw.compare(run, flow), tw.rate(run)])
    is_the_same(tw.observe(run, norm=tw.observables.parameter_norm))
    back = pickle.loads(pickle.dumps(run))
    # An objective is equal to itself only.
    assert back.objective is not run.objective
    assert (back.status, back.stats) == (run.status, run.stats)


def test_curvature_and_what_is_told_by_it(run):
    eigenvalues = tw.extreme_eigenvalues(run.objective, run.initial, smallest=1)
    point = tw.until.CriticalPoint(1e-7, 0, eigenvalues, 1e-3, 2, found=True, isolated=True)
    arrived = dataclasses.replace(run, limit=point)
    is_the_same([eigenvalues, arrived])


def test_certificates_and_laws(run):
    """Made by hand, since it takes long to compile what makes them."""
    times, params = np.asarray(run.times), run.params
    grounds = (tw.closeness.Hypothesis("the network is smooth", "assumed"),)
    certificate = tw.Certificate(0.1, 0.05, 0.2, 0.15, 2.0, grounds, times, times, times, 30)
    of_run = tw.RunCertificate(
        0.1, times, grounds, times, times, 0.3, params, gradients=30, objective=run.objective
    )
    law = tw.DistanceLaw(
        run.times, (params,), jnp.ones((3, 1, 1)), run.times, params, run.dynamics, run.status,
        run.stats,
    )  # fmt: skip
    largest = tw.LargestStep(0.1, 20, 0.2, 0.01, 0.1, law, 90)
    is_the_same([certificate, of_run, law, largest])
    assert pickle.loads(pickle.dumps(of_run)).hypotheses == grounds


def test_kernels(run):
    kernel = tw.kernels.empirical(run.objective, run.initial)
    dynamics = tw.HeavyBall(0.1, 0.5)
    predicted = tw.predicted_run(dynamics, run.objective, run.initial, at=range(5))
    is_the_same(
        [
            kernel,
            predicted,
            tw.kernels.modes(kernel.matrix("mean")),
            tw.predicted_rate(dynamics, predicted),
            tw.kernels.fully_connected(2, activation="softplus"),
            tw.kernels.convolutional([1, 5], convolutions=1, kernel=3, activation="tanh"),
        ]
    )


def test_data_and_networks():
    objective, _ = problem()
    labels = jnp.arange(12) % 2
    is_the_same(tw.datasets.Dataset(objective.inputs, labels, name="parity", classes=2))
    convolutional = tw.networks.convolutional_strided(side=9, activation="tanh", key=jr.key(0))
    is_the_same([convolutional, tw.networks.two_layer(4, 6, key=jr.key(0))])


def evaluated(run):
    """What a worker of a pool makes of a trajectory."""
    return run, float(run.objective.value(run.initial))


def test_through_a_process_pool(pool, run):
    _, network = problem("tanh")
    for sent in (run, dataclasses.replace(run, initial=network)):
        back, loss = pool.submit(evaluated, sent).result()
        same_bits(back, sent)
        assert loss == float(sent.objective.value(sent.initial))
        assert back.initial.activation is sent.initial.activation


def in_double_precision():
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def pool():
    """One process that starts afresh, as processes of a cluster do."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=in_double_precision
    ) as executor:
        yield executor
