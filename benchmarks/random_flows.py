"""Two hundred random gradient flows: how far the reported global error can be trusted.

    python benchmarks/random_flows.py [--count 200] [--workers 2] [--json FILE]

Networks, data, losses, initialisations, horizons and tolerances are drawn at random; even seeds
have smooth activations, odd ones kinks, and four flows at a time share an architecture. The true
error at each of ten saved times is the Euclidean distance over all parameters to a reference that
owes nothing to the method that is judged: for smooth networks Dopri8 at `rtol` 1e-11, for kinked
ones gradient descent with steps h and 2h, extrapolated to step 0, where h is halved until the
reference's own error, the difference to what steps 2h and 4h extrapolate to, is below a fifth of
the error that the flow reports. Where h cannot be made that small, a saved time still counts if the
reference is good enough to tell which of the two errors is the larger; otherwise it is dropped, and
said to be. A true error below 1e-13 of the distance moved is round-off and counts as covered.

The flow of a kinked network need not be unique: it may slide along a kink to a point where several
solutions part. Where an error is not covered, the reference is therefore made again from starts
changed by 1e-8. If what it reaches changes by more than is reported, the flow is said not to be
unique, and the error is counted twice: against the first reference, and against the nearest of the
solutions found.

The targets: true <= reported in 99 %, and a median of reported / true of at most 10.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment
from jax.flatten_util import ravel_pytree

import thalweg as tw

SMOOTH, KINKED = ("tanh", "softplus", "gelu"), ("relu", "leaky_relu")
KINDS = ("smooth", "kinked")
SAVES = 11
# As many flows share an architecture, a loss and a number of samples, and so compile but once.
FAMILY = 4
# Steps of gradient descent from 0 to t1: the first attempt, and the most.
FEWEST, MOST = 8_000, 4_096_000
# The reference is to be this much better than what is reported and, as long as that takes no more
# steps than ENOUGH, twice as good as what is found, lest the ratio of the two be its own.
BETTER, ENOUGH = 5.0, 128_000
ROUND_OFF = 1e-13
# The relative change of the start, and how many of them, to see whether solutions part.
NUDGE, NUDGES = 1e-8, 5


def drawn(seed):
    """A random problem: a description, the objective and the initial network.

    What the compiled code depends on is drawn once for FAMILY flows of a kind, the rest for each.
    """
    kinked = seed % 2 == 1
    shared = np.random.default_rng([seed // (2 * FAMILY), kinked])
    random = np.random.default_rng(seed)
    depth = int(shared.integers(2, 6))
    cross_entropy = bool(shared.integers(2))
    inputs, samples = int(shared.integers(3, 9)), int(shared.integers(20, 61))
    outputs = int(shared.integers(2 if cross_entropy else 1, 4))
    hidden = [int(w) for w in shared.integers(4, 17, depth - 1)]
    what = {
        "seed": seed,
        "kind": "kinked" if kinked else "smooth",
        "activation": str(shared.choice(KINKED if kinked else SMOOTH)),
        "widths": [inputs, *hidden, outputs],
        "bias": bool(shared.integers(2)),
        "samples": samples,
        "loss": "cross-entropy" if cross_entropy else "squared error",
        "init": str(random.choice(["xavier", "he", "lecun"])),
        "targets": "labels" if cross_entropy else str(random.choice(["noise", "teacher"])),
        "t1": float(np.exp(random.uniform(0, np.log(20)))),
        "rtol": float(10 ** random.uniform(-5 if kinked else -6, -3)),
    }
    start, teacher = (
        tw.networks.fully_connected(
            what["widths"],
            activation=what["activation"],
            bias=what["bias"],
            init=what["init"],
            key=key,
        )
        for key in jr.split(jr.key(seed))
    )
    x = random.normal(size=(samples, inputs))
    loss = tw.losses.cross_entropy if cross_entropy else tw.losses.squared_error
    if cross_entropy:
        y = random.integers(0, outputs, samples)
    elif what["targets"] == "teacher":
        y = tw.networks.apply(teacher, jnp.asarray(x))
    else:
        y = random.normal(size=(samples, outputs))
    return what, tw.Objective(tw.networks.apply, loss, x, y), start


def rows(params):
    """Parameters stacked over saved times, as a matrix with a row for each of them."""
    return np.concatenate(
        [np.asarray(leaf).reshape(SAVES, -1) for leaf in jax.tree.leaves(params)], axis=1
    )


@jax.jit
def descent(objective, params, t1, steps):
    """Gradient descent to t1, with as many steps between every two saved times."""
    theta, unravel = ravel_pytree(params)
    h = t1 / (SAVES - 1) / steps

    def step(_, p):
        return jax.tree.map(lambda a, g: a - h * g, p, objective.gradient(p))

    def stretch(k, carry):
        p, saved = carry
        p = jax.lax.fori_loop(0, steps, step, p)
        return p, saved.at[k].set(ravel_pytree(p)[0])

    saved = jnp.broadcast_to(theta, (SAVES, theta.size))
    return jax.lax.fori_loop(1, SAVES, stretch, (unravel(theta), saved))[1]


def distances(a, b):
    """Row by row; infinite where a row is not finite."""
    gap = np.linalg.norm(a - b, axis=1)
    return np.where(np.isfinite(gap), gap, np.inf)


def by_dopri8(objective, params, times):
    """The reference of a smooth network, and its error."""
    exact = tw.integrate(
        tw.GradientFlow(),
        objective,
        params,
        save_at=times,
        rtol=1e-11,
        atol=1e-13,
        solver=diffrax.Dopri8(),
    )
    return rows(exact.params), np.asarray(exact.error), exact.stats.steps


def by_descent(objective, params, times, solution, reported, moved):
    """The reference of a kinked network, as good as the reported error asks for, and its error."""
    steps, runs = FEWEST // 4, []
    while True:
        run = descent(objective, params, float(times[-1]), steps // (SAVES - 1))
        runs = [*runs[-2:], np.asarray(run)]
        if len(runs) == 3:
            coarser, coarse, fine = runs
            best = 2 * fine - coarse
            uncertain = distances(best, 2 * coarse - coarser)
            enough = np.all(uncertain <= np.maximum(reported / BETTER, ROUND_OFF * moved))
            measured = distances(solution, best)
            # With hindsight: is what was found the flow's error or the reference's?
            resolved = np.all(2 * uncertain <= measured)
            if (enough and (resolved or steps >= ENOUGH)) or 2 * steps > MOST:
                return best, uncertain, steps
        steps *= 2


def neighbours(objective, params, times, steps):
    """References from starts that are as good as the same."""
    theta, unravel = ravel_pytree(params)
    random = np.random.default_rng(0)
    for _ in range(NUDGES):
        nudge = random.normal(size=theta.size)
        nudge *= NUDGE * np.linalg.norm(theta) / np.linalg.norm(nudge)
        start = unravel(theta + nudge)
        fine, coarse = (
            np.asarray(descent(objective, start, float(times[-1]), n // (SAVES - 1)))
            for n in (steps, steps // 2)
        )
        yield 2 * fine - coarse


def measured(seed):
    """What a flow reports, and what is true."""
    start, cpu = time.perf_counter(), time.process_time()
    what, objective, params = drawn(seed)
    times = np.linspace(0, what["t1"], SAVES)
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=times, rtol=what["rtol"])
    row = {**what, "status": flow.status.kind, "solver": flow.stats.solver}
    if len(flow.times) < SAVES:
        return {**row, "cpu_seconds": time.process_time() - cpu}
    solution, reported = rows(flow.params), np.asarray(flow.error)
    moved = distances(solution, solution[:1])
    apart, nearest = np.zeros(SAVES), None
    if what["kind"] == "smooth":
        best, uncertain, steps = by_dopri8(objective, params, times)
        true = distances(solution, best)
    else:
        best, uncertain, steps = by_descent(objective, params, times, solution, reported, moved)
        true = nearest = distances(solution, best)
        if np.any(true > np.maximum(reported, ROUND_OFF * moved)):
            for other in neighbours(objective, params, times, steps):
                apart = np.maximum(apart, distances(other, best))
                distance = distances(solution, other)
                # One solution for the whole way: the one that is nearest at its worst.
                if np.nanmax(distance / reported) < np.nanmax(nearest / reported):
                    nearest = distance
    return {
        **row,
        "moved": moved[1:].tolist(),
        "reported": reported[1:].tolist(),
        "true": true[1:].tolist(),
        "nearest": (true if nearest is None else nearest)[1:].tolist(),
        "uncertain": uncertain[1:].tolist(),
        "apart": apart[1:].tolist(),
        "reference_steps": steps,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
    }


def family(seeds):
    """The results of flows that share compiled code."""
    results = [measured(seed) for seed in seeds]
    jax.clear_caches()
    return results


def finished(pool, tasks):
    """The results as they come in."""
    try:
        for task in as_completed(tasks):
            yield from task.result()
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def judged(row):
    """For every saved time: whether the reference can tell, whether the error is covered."""
    names = ("moved", "reported", "true", "nearest", "uncertain", "apart")
    moved, reported, true, nearest, uncertain, apart = (np.array(row[name]) for name in names)
    nothing = true <= ROUND_OFF * moved
    good = uncertain <= np.maximum(reported / BETTER, ROUND_OFF * moved)
    clear = good | (np.abs(true - reported) > uncertain)
    return {
        "good": good,
        "clear": clear,
        "covered": nothing | (true <= reported),
        "covered_by_nearest": nothing | (np.minimum(true, nearest) <= reported),
        "nothing": nothing,
        "parted": ~nothing & (true > reported) & (apart > reported),
        # What reported / true is at least and at most, given the reference's error.
        "least": reported / np.maximum(true + uncertain, 1e-300),
        "ratio": reported / np.maximum(true, 1e-300),
        "most": reported / np.maximum(true - uncertain, 1e-300),
    }


def summary(flows, kinds):
    """Print and return the figures of some kinds of networks."""
    kind = " and ".join(kinds)
    done = [row for row in flows if row["kind"] in kinds and "true" in row]
    ended = [row["seed"] for row in flows if row["kind"] in kinds and "true" not in row]
    verdicts = [judged(row) for row in done]
    warned = [row["seed"] for row in done if row["status"] != "completed"]
    result = {"kind": kind, "flows": len(done), "ended_early": ended, "uncontrolled": warned}
    print(f"\n{kind}: {len(done)} flows judged, {len(ended)} ended early {ended or ''}")
    print(f"  warned of an error out of control: {warned or 'none'}")
    if not done:
        return result
    for name, pick in (("all saved times", slice(None)), ("last time", slice(-1, None))):
        every = {key: np.concatenate([v[key][pick] for v in verdicts]) for key in verdicts[0]}
        clear = every["clear"]
        above = clear & ~every["nothing"]
        part = {
            "pairs": int(clear.sum()),
            "dropped": int((~clear).sum()),
            "reference_coarse": int((clear & ~every["good"]).sum()),
            "round_off": int((clear & every["nothing"]).sum()),
            "covered": float(every["covered"][clear].mean()),
            "covered_by_nearest": float(every["covered_by_nearest"][clear].mean()),
            "parted": int((clear & every["parted"]).sum()),
            "median_ratio": [
                float(np.median(every[key][above])) for key in ("least", "ratio", "most")
            ],
            "tenth_and_ninetieth": np.quantile(every["ratio"][above], [0.1, 0.9]).tolist(),
        }
        low, middle, high = part["median_ratio"]
        few, many = part["tenth_and_ninetieth"]
        print(
            f"  {name}: {part['pairs']} judged, true <= reported in {part['covered']:.1%}"
            f" ({part['parted']} of the others where the flow is not unique; against the nearest"
            f" solution {part['covered_by_nearest']:.1%});"
            f" reported / true: median {middle:.2f} (between {low:.2f} and {high:.2f}),"
            f" 80 % within {few:.2f} and {many:.3g}\n"
            f"    dropped, reference too coarse to tell: {part['dropped']}; judged with a"
            f" reference coarser than reported / {BETTER:g}: {part['reference_coarse']};"
            f" at round-off level: {part['round_off']}"
        )
        result[name] = part
    result["dropped_flows"] = [
        row["seed"] for row, v in zip(done, verdicts, strict=True) if not v["clear"][-1]
    ]
    print(f"  flows dropped at the last time: {result['dropped_flows'] or 'none'}")
    order = sorted(
        (
            (v["ratio"][k], row, k)
            for row, v in zip(done, verdicts, strict=True)
            for k in [int(np.argmin(np.where(v["clear"] & ~v["nothing"], v["ratio"], np.inf)))]
        ),
        key=lambda entry: entry[0],
    )
    result["worst"] = []
    for ratio, row, k in [entry for entry in order if np.isfinite(entry[0])][:8]:
        worst = {
            "seed": row["seed"],
            "saved_time": k + 1,
            "true_over_reported": 1 / ratio,
            "relative": row["true"][k] / row["moved"][k],
            "uncertain": row["uncertain"][k] / row["true"][k],
            "parted": row["apart"][k] > row["reported"][k],
        }
        result["worst"].append(worst)
        print(
            f"    seed {row['seed']:3d}, save {k + 1:2d}: true / reported {1 / ratio:6.3f}"
            f" +- {1 / ratio * worst['uncertain']:.3f}, true / moved {worst['relative']:.1e};"
            f" {row['activation']}, {row['loss']}, {row['widths']}, rtol {row['rtol']:.1e},"
            f" t1 {row['t1']:.3g}{'; not unique' if worst['parted'] else ''}"
        )
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="seeds 0 to count - 1")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    start, flows = time.perf_counter(), []
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        families = [
            [s for s in range(f, f + 2 * FAMILY, 2) if s < arguments.count]
            for first in range(0, arguments.count, 2 * FAMILY)
            for f in (first, first + 1)
        ]
        tasks = [pool.submit(family, seeds) for seeds in families]
        for row in finished(pool, tasks):
            flows.append(row)
            print(
                f"{len(flows):3d} seed {row['seed']:3d} {row['activation']:10s}"
                f" {row['status']:12s} {row['cpu_seconds']:5.1f} s",
                *(
                    f"{row[key][-1] / row['moved'][-1]:.1e} {key}"
                    for key in ("true", "reported", "uncertain")
                    if key in row and row["moved"][-1] > 0
                ),
                f"reference steps {row.get('reference_steps', 0):,}",
                flush=True,
            )
    flows.sort(key=lambda row: row["seed"])
    summaries = [summary(flows, kinds) for kinds in (("smooth",), ("kinked",), KINDS)]
    seconds = time.perf_counter() - start
    cpu = sum(row["cpu_seconds"] for row in flows)
    print(f"\n{seconds:.0f} s, {arguments.workers} processes; {cpu:.0f} s of processor time")
    if arguments.json:
        result = {
            "summary": summaries,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "workers": arguments.workers,
            "flows": flows,
            "environment": environment(),
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
