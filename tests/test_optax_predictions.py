"""Predictions of optax transformations: those of the run itself, or a refusal that says why."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import thalweg as tw
from tests.test_real_kernels import dense_jacobian
from thalweg.optimizers import coordinatewise

RNG = np.random.default_rng(3)
INPUTS, TARGETS, OTHERS = (RNG.normal(size=shape) for shape in ((5, 4), (5, 2), (3, 4)))
PARAMS = {"weight": jnp.asarray(RNG.normal(size=(4, 2))), "bias": jnp.asarray(RNG.normal(size=2))}
AT = np.array([0, 1, 7, 50])


def linear_model(params, inputs):
    return inputs @ params["weight"] + params["bias"]


def objective(targets=TARGETS):
    return tw.Objective(linear_model, tw.losses.squared_error, INPUTS, targets)


def by_hand(transformation, targets):
    """Parameters at the saved steps, of the run that optax makes."""

    def one(carry):
        k, params, state = carry
        slope = (linear_model(params, INPUTS) - targets) / 5
        gradient = {"weight": INPUTS.T @ slope, "bias": jnp.sum(slope, axis=0)}
        updates, state = transformation.update(gradient, state, params)
        return k + 1, optax.apply_updates(params, updates), state

    def to_save(carry, save):
        carry = jax.lax.while_loop(lambda carry: carry[0] < save, one, carry)
        return carry, carry[1]

    begin = (jnp.asarray(0), PARAMS, jax.tree.map(jnp.asarray, transformation.init(PARAMS)))
    return jax.jit(lambda carry: jax.lax.scan(to_save, carry, AT)[1])(begin)


PREDICTED = {
    "decay first": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)),
    "decay last": optax.chain(optax.sgd(0.1), optax.add_decayed_weights(0.05)),
    "a mask that takes all": optax.chain(
        optax.masked(optax.add_decayed_weights(0.2), {"weight": True, "bias": True}),
        optax.sgd(optax.cosine_decay_schedule(0.2, 30), momentum=0.8, nesterov=True),
    ),
    "what changes from step to step": optax.apply_if_finite(
        optax.chain(
            optax.ema(0.7),
            optax.inject_hyperparams(optax.sgd, hyperparam_dtype=jnp.float64)(
                optax.cosine_decay_schedule(0.3, 40), momentum=0.6
            ),
            optax.apply_every(3),
        ),
        3,
    ),
}


@pytest.mark.parametrize("name", PREDICTED)
def test_linear_chains_on_a_linear_model(name):
    """Also at scales at which other chains would begin to clip."""
    targets = 100 * TARGETS if name == "decay first" else TARGETS
    optimizer = tw.Optax(PREDICTED[name])
    predicted = tw.predicted_run(optimizer, objective(targets), PARAMS, AT, inputs=OTHERS)
    path = by_hand(PREDICTED[name], targets)
    for inputs, found in ((INPUTS, predicted.outputs), (OTHERS, predicted.others)):
        expected = jax.vmap(lambda p, x=inputs: linear_model(p, x))(path)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    losses = [objective(targets).value(jax.tree.map(lambda a, i=i: a[i], path)) for i in range(4)]
    np.testing.assert_allclose(predicted.loss, losses, rtol=1e-9)
    # Of these only the update against the decay makes anything grow.
    assert (predicted.status.kind == "diverged") == (name == "decay last")


REFUSED = {
    "centralisation": (optax.centralize(), "`centralize` brings entries of params.'weight'"),
    "one vector": (optax.flatten(optax.sgd(0.1)), "brings entries .* together"),
    "clipping": (optax.clip(5.0), "`clip` applies"),
    "clipping the norm": (optax.clip_by_global_norm(1e9), "`clip_by_global_norm` applies `square`"),
    "clipping by units": (optax.adaptive_grad_clip(1e9), "`adaptive_grad_clip` applies"),
    "Adam": (optax.scale_by_adam(), "`scale_by_adam` applies"),
    "another law later": (optax.scale_by_radam(), "`scale_by_radam` applies"),
    "signs": (optax.scale_by_sign(), "applies `sign`"),
    "a Lion": (optax.scale_by_lion(), "applies `sign`"),
    "trust ratios": (optax.scale_by_trust_ratio(), "`scale_by_trust_ratio` applies"),
    "matrices": (optax.contrib.muon(0.1), "`scale_by_muon` brings entries"),
    "noise": (optax.add_noise(1e-9, 0.55, key=0), "`add_noise` adds numbers"),
    "bounds on parameters": (optax.keep_params_nonnegative(), "not linear"),
    "rounded momentum": (
        optax.trace(0.9, accumulator_dtype=jnp.float32),
        "`trace` rounds .* to float32",
    ),
    "rounded sums": (
        optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation(),
        "rounds .* to float32",
    ),
    "a schedule in float32": (
        optax.inject_hyperparams(optax.add_decayed_weights)(optax.linear_schedule(0.1, 0.0, 40)),
        "not known to the precision of params.'bias'., float64: `add_decayed_weights`",
    ),
    "decay of some": (
        optax.masked(optax.add_decayed_weights(1e-8), {"weight": True, "bias": False}),
        "params.'bias'. and params.'weight'. move differently .* `optax.masked`",
    ),
    "decay of matrices": (
        optax.add_decayed_weights(0.1, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        "move differently",
    ),
    "rates of their own": (
        optax.multi_transform(
            {"slow": optax.scale(0.1), "fast": optax.scale(0.2)},
            {"weight": "slow", "bias": "fast"},
        ),
        "move differently .* `optax.multi_transform`",
    ),
    "a freeze, late": (
        optax.masked(
            optax.scale_by_schedule(optax.piecewise_constant_schedule(1.0, {40: 0.0})),
            {"weight": True, "bias": False},
        ),
        "move differently",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_chains_are_refused_with_the_reason(name):
    transformation, why = REFUSED[name]
    optimizer = tw.Optax(optax.chain(transformation, optax.sgd(0.1)))
    with pytest.raises(ValueError, match=f"dynamics: .*optax.*{why}"):
        tw.predicted_run(optimizer, objective(), PARAMS, AT)


def test_what_differs_only_after_the_last_step_is_no_difference():
    late, _ = REFUSED["a freeze, late"]
    optimizer = tw.Optax(optax.chain(late, optax.sgd(0.1)))
    assert coordinatewise(optimizer, PARAMS, 40).response(1.0, 40) == pytest.approx(0.9**40)
    with pytest.raises(ValueError, match="move differently"):
        coordinatewise(optimizer, PARAMS, 42)


def test_accumulators_as_precise_as_parameters_are_read():
    """In float32 both are; in float64 optax would round."""
    single = PARAMS["weight"].astype(jnp.float32)
    optimizer = tw.Optax(optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation())
    rule = coordinatewise(optimizer, single, 7)
    steps = np.array([2, 3, 5, 6])
    expected = np.array([1.0, 0.95, 0.95, 0.95**2])
    np.testing.assert_allclose(rule.response(0.5, steps), expected, rtol=1e-7)


class Wandering(tw.Optimizer):
    """An optimizer of one's own, which is linear and looks ahead, or is asked to do something."""

    mode: str = "ahead"
    name = "wandering"

    @property
    def time_per_step(self):
        return 1.0

    def limit(self):
        return tw.GradientFlow()

    def response(self, eigenvalue, step):
        raise NotImplementedError

    def init(self, params):
        return params

    def update(self, k, params, state, gradient):
        def ahead(x, y):
            return x + 0.5 * (x - y)

        points = jax.tree.map(ahead, params, state)
        slope = gradient(points)
        if self.mode == "twice":
            slope = gradient(slope)
        if self.mode == "foreign":
            factor = jax.pure_callback(lambda k: k, jax.ShapeDtypeStruct((), k.dtype), k)
            slope = jax.tree.map(lambda g: factor * g, slope)
        if self.mode == "weights":
            slope = jax.tree.map(lambda g: jnp.arange(g.size).reshape(g.shape) * g, slope)
        return jax.tree.map(lambda p, g: p - 0.1 * g, points, slope), params


def test_an_optimizer_of_ones_own():
    rule, ours = coordinatewise(Wandering(), PARAMS, 30), tw.NesterovConstant(0.1, 0.5)
    curvatures, steps = np.array([0.3, 4.0]), np.array([[0], [1], [30]])
    expected = ours.response(curvatures, steps)
    np.testing.assert_allclose(rule.response(curvatures, steps), expected, atol=1e-13)
    for mode, why in (("twice", "2 gradients"), ("foreign", "foreign"), ("weights", "differently")):
        with pytest.raises(ValueError, match=why):
            coordinatewise(Wandering(mode), PARAMS, 30)


NETWORK = tw.networks.fully_connected(
    [4, 6, 2], init=tw.networks.TangentKernel(1.2, 0.3), key=jr.key(0)
)
RATE, MOMENTUM, DECAY = 0.15, 0.7, 0.08
DECAYING = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=MOMENTUM))


@functools.cache
def linearised():
    """Predictions at the start on all samples, and their Jacobian."""
    both = np.concatenate([INPUTS, OTHERS])
    network = tw.Objective(tw.networks.apply, tw.losses.squared_error, INPUTS, TARGETS)
    jacobian = dense_jacobian(network, NETWORK, both).reshape(16, -1)
    return np.asarray(tw.networks.apply(NETWORK, both)).ravel(), jacobian


@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
def test_decay_of_a_linearised_network(loss):
    """Parameters go to zero, and predictions to what the linearised network says there."""
    labels = np.eye(2)[RNG.integers(0, 2, 5)]
    kind, targets = (
        (tw.losses.squared_error, TARGETS)
        if loss == "squared error"
        else (tw.losses.cross_entropy, labels)
    )
    network = tw.Objective(tw.networks.apply, kind, INPUTS, targets)
    predicted = tw.predicted_run(tw.Optax(DECAYING), network, NETWORK, AT, inputs=OTHERS)
    start, jacobian = linearised()
    first = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(NETWORK)])
    weights, velocity = first.copy(), np.zeros_like(first)
    rows = []
    for k in range(AT[-1] + 1):
        now = (start + jacobian @ (weights - first)).reshape(8, 2)
        if k in AT:
            rows.append(now)
        chance = np.exp(now[:5]) / np.exp(now[:5]).sum(axis=1, keepdims=True)
        slope = (now[:5] if loss == "squared error" else chance) - targets
        gradient = jacobian[:10].T @ slope.ravel() / 5 + DECAY * weights
        velocity = MOMENTUM * velocity + gradient
        weights = weights - RATE * velocity
    rows = np.asarray(rows)
    np.testing.assert_allclose(predicted.outputs, rows[:, :5], atol=1e-9)
    np.testing.assert_allclose(predicted.others, rows[:, 5:], atol=1e-9)
    # Decay of this size is not a detail.
    plain = tw.predicted_run(tw.HeavyBall(RATE, MOMENTUM), network, NETWORK, AT)
    assert np.abs(plain.outputs - rows[:, :5]).max() > 0.1


def test_infinitely_wide_networks_do_not_decay():
    limit, network = tw.kernels.fully_connected(2, activation="erf"), objective()
    with pytest.raises(ValueError, match="decays parameters"):
        tw.kernels.predicted_ensemble(tw.Optax(DECAYING), network, limit, [0, 9])
    names = optax.masked(optax.scale(0.1), {"weight": True, "scale": False})
    with pytest.raises(ValueError, match="have no names"):
        tw.kernels.predicted_ensemble(tw.Optax(names), network, limit, [0, 9])
    by_shape = optax.masked(optax.scale(0.1), lambda p: jax.tree.map(lambda a: a.ndim > 1, p))
    with pytest.raises(ValueError, match="move differently"):
        tw.kernels.predicted_ensemble(tw.Optax(by_shape), network, limit, [0, 9])


@pytest.mark.parametrize(
    "optimizer",
    [tw.GradientDescent(0.3), tw.HeavyBall(0.3, 0.6), tw.Nesterov(0.3), tw.Optax(optax.sgd(0.3))],
    ids=lambda o: o.name,
)
def test_other_samples_learn_all_digits_from_a_mode_that_hardly_moves(optimizer):
    """The kernel squares singular values: one of 2e-7 is just above rounding."""
    left, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    inputs, others = left * np.array([1.0, 0.7, 0.3, 2e-7]), np.array([[0.0, 0.0, 0.0, 1.0]])
    model = tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, inputs, np.ones(4))
    start = jnp.asarray([1.0, -0.4, 0.2, 0.7])
    predicted = tw.predicted_run(optimizer, model, start, [0, 1, 60], inputs=others)
    run = tw.descend(optimizer, model, start, 60, save_steps=[0, 1, 60])
    np.testing.assert_allclose(predicted.others, run.params @ others.T, atol=1e-12)


def test_a_step_that_is_not_a_number_is_not_predicted_to_be_taken_out():
    def schedule(step):
        return 0.1 * jnp.sin(1.0 * step) / step

    optimizer = tw.Optax(optax.chain(optax.sgd(schedule), optax.zero_nans()))
    with pytest.raises(ValueError, match="infinite or NaN"):
        tw.predicted_run(optimizer, objective(), PARAMS, AT)


def test_entries_that_change_places_are_not_linear_entry_by_entry():
    def turned(updates, params):
        return jax.tree.map(
            lambda u: jax.lax.reshape(u, u.shape, dimensions=tuple(reversed(range(u.ndim)))),
            updates,
        )

    square = {"weight": jnp.ones((4, 4))}
    optimizer = tw.Optax(optax.chain(optax.stateless(turned), optax.sgd(0.1)))
    data = tw.Objective(
        lambda p, x: x @ p["weight"], tw.losses.squared_error, INPUTS, np.ones((5, 4))
    )
    with pytest.raises(ValueError, match="reshape"):
        tw.predicted_run(optimizer, data, square, AT)


@pytest.mark.parametrize("transformation", [optax.polyak_sgd(), optax.contrib.momo()])
def test_updates_that_ask_for_the_loss_are_refused(transformation):
    with pytest.raises(ValueError, match=r"cannot be called .*value"):
        tw.predicted_run(tw.Optax(transformation), objective(), PARAMS, AT)
