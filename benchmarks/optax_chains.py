"""Random chains of optax transformations on linear models: predicted to 1e-8, or refused.

On a model that is linear in its parameters a prediction of `tw.predicted_run` and the run itself
must agree, whatever the optimizer. Chains are drawn from decay, clipping, schedules, momentum,
centralisation, masks, noise, accumulation and adaptive methods, in random order, with data, scales
and numbers of steps drawn as well. The run is optax's own, step by step, on gradients in closed
form. A chain counts as

- predicted, if predictions on the training data and on other samples are within 1e-8 of the run's
  at all saved steps, relative to the largest of them or 1;
- refused, if `predicted_run` raises a ValueError;
- in between otherwise, of which there should be none.

    python benchmarks/optax_chains.py [--count 2000] [--seed 0] [--json FILE]
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _digits import environment

import thalweg as tw

SAMPLES, OTHERS, FEATURES, OUTPUTS = 5, 3, 4, 2
TOLERANCE = 1e-8
# A run that has left these is compared no further.
LARGEST = 1e150


def predict(params, inputs):
    return inputs @ params["weight"] + params["bias"]


def decay(rng):
    rate = 10 ** rng.uniform(-4, 0)
    steps = int(rng.integers(5, 50))
    if rng.random() < 0.1:
        # Computed in float32, and refused where parameters are float64.
        return optax.add_decayed_weights(optax.linear_schedule(rate, 0.0, steps))
    if rng.random() < 0.2:
        return optax.add_decayed_weights(optax.cosine_decay_schedule(rate, steps))
    return optax.add_decayed_weights(rate)


def masked_decay(rng):
    mask = {"weight": bool(rng.random() < 0.7), "bias": bool(rng.random() < 0.5)}
    return optax.add_decayed_weights(10 ** rng.uniform(-4, 0), mask=mask)


def masked(rng):
    inner = rng.choice(LINEAR)(rng)
    mask = {"weight": bool(rng.random() < 0.7), "bias": bool(rng.random() < 0.7)}
    return optax.masked(inner, mask)


def by_dimension(rng):
    return optax.masked(decay(rng), lambda params: jax.tree.map(lambda p: p.ndim > 1, params))


def labelled(rng):
    rates = 10 ** rng.uniform(-2, 0, size=2)
    if rng.random() < 0.5:
        rates[1] = rates[0]
    parts: dict[Hashable, optax.GradientTransformation] = {
        "first": optax.scale(rates[0]),
        "second": optax.scale(rates[1]),
    }
    return optax.multi_transform(parts, {"weight": "first", "bias": "second"})


def clipping(rng):
    size = 10 ** rng.uniform(-1, 3)
    return rng.choice(
        [optax.clip, optax.clip_by_global_norm, optax.clip_by_block_rms, optax.adaptive_grad_clip]
    )(size)


def schedule(rng):
    steps = int(rng.integers(3, 80))
    return optax.scale_by_schedule(
        [
            lambda: optax.cosine_decay_schedule(1.0, steps),
            lambda: optax.exponential_decay(1.0, steps, 0.5),
            lambda: optax.piecewise_constant_schedule(1.0, {steps: 0.1}),
            lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, steps, 3 * steps),
            lambda: optax.sgdr_schedule(
                [{"init_value": 0.1, "peak_value": 1.0, "decay_steps": steps, "warmup_steps": 2}]
            ),
        ][rng.integers(5)]()
    )


def momentum(rng):
    size = rng.uniform(0.1, 0.95)
    dtype = jnp.float32 if rng.random() < 0.1 else None
    if rng.random() < 0.6:
        return optax.trace(size, nesterov=bool(rng.random() < 0.5), accumulator_dtype=dtype)
    return optax.ema(size, debias=bool(rng.random() < 0.5), accumulator_dtype=dtype)


def accumulated(rng):
    return optax.apply_every(int(rng.integers(2, 5)))


def guarded(rng):
    return optax.zero_nans()


def adaptive(rng):
    return rng.choice(
        [
            optax.scale_by_adam,
            optax.scale_by_radam,
            optax.scale_by_rms,
            optax.scale_by_sign,
            optax.scale_by_lion,
            optax.scale_by_trust_ratio,
            optax.normalize_by_update_norm,
        ]
    )()


def noise(rng):
    return optax.add_noise(10 ** rng.uniform(-6, 0), 0.55, key=int(rng.integers(100)))


def centralised(rng):
    return optax.centralize()


def injected(rng):
    dtype = jnp.float32 if rng.random() < 0.2 else jnp.float64
    make = optax.inject_hyperparams(optax.add_decayed_weights, hyperparam_dtype=dtype)
    return make(weight_decay=optax.cosine_decay_schedule(0.1, int(rng.integers(5, 50))))


LINEAR = [decay, schedule, momentum, accumulated, guarded, injected]
OTHER = [masked_decay, masked, by_dimension, labelled, clipping, adaptive, noise, centralised]


def drawn(rng):
    """A chain, and what it is made of."""
    makers = [rng.choice(LINEAR) for _ in range(rng.integers(0, 4))]
    if rng.random() < 0.5:
        makers.append(rng.choice(OTHER))
    makers.append(step)
    rng.shuffle(makers)
    chain = optax.chain(*(make(rng) for make in makers))
    names = [make.__name__ for make in makers]
    if rng.random() < 0.1:
        names.append("finite")
        chain = optax.apply_if_finite(chain, 3)
    return chain, names


def step(rng):
    return optax.scale(-(10 ** rng.uniform(-2, 0)))


def problem(rng):
    scale = 10 ** rng.uniform(-1, 2)
    inputs = rng.normal(size=(SAMPLES + OTHERS, FEATURES)) / 2
    targets = scale * rng.normal(size=(SAMPLES, OUTPUTS))
    size = 10 ** rng.uniform(-2, 1)
    params = {
        "weight": size * rng.normal(size=(FEATURES, OUTPUTS)),
        "bias": size * rng.normal(size=OUTPUTS),
    }
    return inputs[:SAMPLES], targets, inputs[SAMPLES:], jax.tree.map(jnp.asarray, params)


def run(chain, params, inputs, targets, others, at):
    """Predictions at the saved steps, `(saves, samples + others, outputs)`."""
    both = jnp.concatenate([inputs, others])

    @jax.jit
    def all_of_it(params, inputs, targets, at):
        def one(carry):
            k, params, state = carry
            slope = (predict(params, inputs) - targets) / len(inputs)
            gradient = {"weight": inputs.T @ slope, "bias": jnp.sum(slope, axis=0)}
            updates, state = chain.update(gradient, state, params)
            return k + 1, optax.apply_updates(params, updates), state

        def to_save(carry, save):
            carry = jax.lax.while_loop(lambda carry: carry[0] < save, one, carry)
            return carry, predict(carry[1], both)

        state = jax.tree.map(jnp.asarray, chain.init(params))
        return jax.lax.scan(to_save, (jnp.asarray(0), params, state), at)[1]

    return np.asarray(all_of_it(params, inputs, targets, at))


def gap(predicted, real):
    found = np.concatenate([predicted.outputs, predicted.others], axis=1)
    worst = 0.0
    for ours, theirs in zip(found, real, strict=True):
        size = max(1.0, np.abs(theirs).max())
        if not size < LARGEST:
            break
        worst = max(worst, np.abs(ours - theirs).max() / size)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counts, refusals, kinds = Counter(), Counter(), Counter()
    worst, worst_case, between = 0.0, "", []
    begin = time.process_time()
    for i in range(arguments.count):
        rng = np.random.default_rng([arguments.seed, i])
        chain, names = drawn(rng)
        inputs, targets, others, params = problem(rng)
        last = int(rng.integers(3, 200))
        at = np.array([0, 1, 1 + last // 2, 1 + last])
        objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
        label = f"{i}: {' > '.join(names)}, {last + 1} steps"
        try:
            predicted = tw.predicted_run(
                tw.Optax(chain), objective, params, at, inputs=others, memory=2**24
            )
        except ValueError as error:
            counts["refused"] += 1
            refusals[str(error).partition("; ")[2].partition(":")[0]] += 1
            continue
        distance = gap(predicted, run(chain, params, inputs, targets, others, at))
        kinds.update(set(names))
        if distance > worst or not worst_case:
            worst, worst_case = distance, label
        if distance <= TOLERANCE:
            counts["predicted"] += 1
        else:
            counts["in between"] += 1
            between.append(label)
            print(f"in between: {label}: {distance:.3g}")
        if i % 100 == 99:
            # Every chain is a program of its own.
            jax.clear_caches()
    for name in ("predicted", "refused", "in between"):
        print(f"{name:12s} {counts[name]:6d}")
    print("refused because", dict(refusals))
    print("among the predicted", dict(kinds))
    print(f"worst distance {worst:.3g} ({worst_case})")
    print(f"{time.process_time() - begin:.0f} s of processor time")
    if arguments.json:
        result = {
            "settings": {"count": arguments.count, "seed": arguments.seed, "tolerance": TOLERANCE},
            "counts": {name: counts[name] for name in ("predicted", "refused", "in between")},
            "refusals": dict(refusals),
            "predicted with": dict(kinds),
            "worst": {"distance": worst, "chain": worst_case},
            "in between": between,
            "environment": environment("optax"),
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
