"""Random landscapes whose flows pass saddles: is what `until` says about their ends true?

    python benchmarks/arrivals.py [--count 500] [--first 0] [--json FILE]

Every landscape has a saddle that its flow passes, or, for controls, ends in. Kinds take turns:

- separable: two directions that relax, two that leave the saddle, with rates over five decades and
  starts down to 1e-8 from its stable manifold;
- rotated: the same in a random orthogonal basis;
- coupled: the unstable directions bend the valley and influence each other;
- degenerate: saddles without curvature (-y^4), half-stable points (y^3), very slow minima;
- linear network: two layers, two modes, spread over up to three decades, from small weights;
- chain: a product of three weights, whose saddle at 0 has no curvature at all;
- tanh network: two hidden units that start nearly alike;
- wide: 256 parameters, beyond what whole Hessians are made for;
- float32: coupled and rotated ones in single precision;
- symmetric: starts exactly on the stable manifold, whose flow does end in the saddle.

A quarter of the first four kinds has values or parameters scaled by 1e-10 or 1e10. The limits are
known in closed form (signs, conserved differences of squares), for tanh networks from LSODA at
`rtol` 1e-12, whose end is made exact by Newton's method on a dense Hessian.

A wrong arrival is an end with `found` true that is farther from the true limit than its error says,
or has another index, or an end that says that the flow leaves a saddle which it does not leave.
Ends that claim nothing are counted: those that met the tolerance on the way past a saddle, others
with `found` false, and those with a status that says that they are not sure.
"""

import argparse
import collections
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _digits import environment
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import thalweg as tw

KINDS = (
    "separable",
    "rotated",
    "coupled",
    "degenerate",
    "linear network",
    "chain",
    "tanh network",
    "wide",
    "float32",
    "symmetric",
)
WIDE = 256
# Until when the reference of a tanh network is followed.
TANH_END = 1e4


def first_output(outputs, targets):
    return outputs


def polynomial(p, rows):
    """`S F(Q^T p / L)`, with two coordinates x that relax and two, y, that may leave.

    F = 1/2 a (x - b y_1^2)^2 + c_2 y^2/2 + c_3 y^3/3 + c_4 y^4/4 + c_6 y^6/6 + d y_1^2 y_2^2
    """

    def value(row):
        scale, length, a, b, coupling = row[0], row[1], row[2:4], row[4:6], row[6]
        c = row[7:15].reshape(4, 2)
        z = row[15:31].reshape(4, 4).T @ p / length
        x, y = z[:2], z[2:]
        powers = jnp.stack([y**2 / 2, y**3 / 3, y**4 / 4, y**6 / 6])
        valley = jnp.sum(a * (x - b * y[0] ** 2) ** 2) / 2
        return scale * (valley + jnp.sum(c * powers) + coupling * y[0] ** 2 * y[1] ** 2)

    return jax.vmap(value)(rows)


def many_parameters(p, rows):
    """1/2 a x^2 + k (-y^2/2 + y^4/4), in coordinates reflected at a random plane."""

    def value(row):
        a, normal = row[:WIDE], row[WIDE:]
        z = p - 2 * normal * (normal @ p)
        y, k = z[0], a[0]
        return jnp.sum(a[1:] * z[1:] ** 2) / 2 + k * (y**4 / 4 - y**2 / 2)

    return jax.vmap(value)(rows)


def product_of_matrices(p, rows):
    return jax.vmap(lambda row: jnp.sum((p[1] @ p[0] - row.reshape(2, 2)) ** 2) / 2)(rows)


def product_of_weights(p, rows):
    return (jnp.prod(p) - rows[:, 0]) ** 2 / 2


def tanh_units(p, inputs):
    return jnp.tanh(inputs @ p[0].T) @ p[1].T


def on_one_row(value, row, dtype: type[np.floating] = np.float64):
    return tw.Objective(value, first_output, np.asarray([row], dtype), np.zeros(1, dtype))


def decades(random, low, high, size=None):
    return 10 ** random.uniform(low, high, size)


def orthogonal(random, n):
    return np.linalg.qr(random.normal(size=(n, n)))[0]


def polynomial_problem(kind, random, symmetric=False, dtype: type[np.floating] = np.float64):
    scale = length = 1.0
    if dtype == np.float64 and random.random() < 0.25:
        if random.random() < 0.5:
            scale = random.choice([1e-10, 1e10])
        else:
            length = random.choice([1e-10, 1e10])
    basis = np.eye(4) if kind == "separable" else orthogonal(random, 4)
    a, k = decades(random, -1, 0.5, 2), decades(random, -5 if dtype == np.float64 else -3, -0.3, 2)
    b, coupling = np.zeros(2), 0.0
    if kind == "coupled":
        b, coupling = random.uniform(-1, 1, 2), random.uniform(0, 0.4) * k.min()
    c = np.array([-k, 0 * k, k, 0 * k])
    x = random.uniform(0.3, 2, 2) * random.choice([-1, 1], 2)
    y = decades(random, -8 if dtype == np.float64 else -3, -0.5, 2) * random.choice([-1, 1], 2)
    # Of the squares: where both derivatives vanish.
    squares = np.linalg.solve([[k[0], 2 * coupling], [2 * coupling, k[1]]], k)
    index, shape = 0, "saddle"
    if kind == "degenerate":
        shape = str(random.choice(["-y^4", "y^3", "slow"]))
        y[0] = decades(random, -3, -1)
        if shape == "-y^4":
            c[:, 0] = 0, 0, -k[0], k[0]
        elif shape == "y^3":
            # From above, the half-stable point; from below, over it and down to -1.
            y[0] *= random.choice([-1, 1])
            c[:, 0] = 0, k[0], k[0], 0
            squares[0] = 0 if y[0] > 0 else 1
        else:
            # A direction whose minimum is far away in time.
            c[:, 0] = k[0], 0, 0, 0
            squares[0] = 0
    if symmetric:
        stays = random.random(2) < (1.0 if random.random() < 0.5 else 0.5)
        y[stays], squares = 0, np.linalg.solve([[k[0], 0], [0, k[1]]], k)
        squares[stays] = 0
        index = int(stays.sum())
        shape = "symmetric" if index else "saddle"
        basis, coupling = np.eye(4), 0.0
    squares = np.maximum(squares, 0)
    y_end = np.sign(y) * np.sqrt(squares)
    limit = np.concatenate([b * y_end[0] ** 2, y_end])
    row = np.concatenate([[scale, length], a, b, [coupling], c.ravel(), basis.ravel()])
    start = length * basis @ np.concatenate([x, y])
    truth = length * basis @ limit
    unit = scale / length
    return {
        "objective": on_one_row(polynomial, row, dtype),
        "start": jnp.asarray(start, dtype),
        "limit": truth,
        "index": index,
        "unit": unit,
        "what": {"shape": shape, "k": k.tolist(), "y": y.tolist(), "scales": [scale, length]},
    }


def wide_problem(random):
    normal = random.normal(size=WIDE)
    normal /= np.linalg.norm(normal)
    k, y = decades(random, -4, -0.5), decades(random, -6, -1) * random.choice([-1, 1])
    z = np.concatenate([[y], random.normal(size=WIDE - 1)])
    end = np.zeros(WIDE)
    end[0] = np.sign(y)
    reflected = np.eye(WIDE) - 2 * np.outer(normal, normal)
    row = np.concatenate([[k], decades(random, -2, 0.5, WIDE - 1), normal])
    return {
        "objective": on_one_row(many_parameters, row),
        "start": jnp.asarray(reflected @ z),
        "limit": reflected @ end,
        "index": 0,
        "unit": 1.0,
        "what": {"k": k, "y": y},
    }


def balanced_end(first, second, target):
    """Where the flow of 1/2 (a b - target)^2 ends: a^2 - b^2 is conserved."""
    difference = first**2 - second**2
    b = np.sqrt((-difference + np.sqrt(difference**2 + 4 * target**2)) / 2)
    return target / b, b


def linear_network_problem(random):
    modes = np.array([1.0, decades(random, -3, -0.3)])
    size = decades(random, -5, -0.7)
    a, b = size * decades(random, -0.5, 0, (2, 2))
    left, right, inner = (orthogonal(random, 2) for _ in range(3))

    def weights(a, b):
        return inner @ np.diag(b) @ right.T, left @ np.diag(a) @ inner.T

    end = weights(*balanced_end(a, b, modes))
    return {
        "objective": on_one_row(product_of_matrices, (left @ np.diag(modes) @ right.T).ravel()),
        "start": [jnp.asarray(w) for w in weights(a, b)],
        "limit": np.concatenate([w.ravel() for w in end]),
        "index": 0,
        "unit": 1.0,
        "what": {"modes": modes.tolist(), "size": size},
    }


def chain_problem(random):
    start = decades(random, -3, -0.5) * decades(random, -0.5, 0, 3)
    target = decades(random, -1, 0.5)

    def weights(shift):
        return np.sqrt(start**2 + shift)

    shift = brentq(
        lambda s: np.prod(weights(s)) - target, 0, 100, xtol=1e-15, rtol=np.float64(1e-15)
    )
    return {
        "objective": on_one_row(product_of_weights, [target]),
        "start": jnp.asarray(start),
        "limit": weights(shift),
        "index": 0,
        "unit": 1.0,
        "what": {"size": float(start.max()), "target": target},
    }


def as_units(flat):
    return [flat[:4].reshape(2, 2), flat[4:].reshape(1, 2)]


def tanh_slope(flat, inputs, targets):
    """The gradient of half the mean squared error, also at complex parameters."""
    hidden, out = as_units(flat)
    units = np.tanh(inputs @ hidden.T)
    off = (units @ out.T - targets) / len(inputs)
    slope = (off * out * (1 - units**2)).T @ inputs
    return np.concatenate([slope.ravel(), (units.T @ off).ravel()])


def tanh_hessian(flat, *data):
    """By complex steps, which leave no error."""
    columns = [tanh_slope(flat + 1e-30j * axis, *data).imag / 1e-30 for axis in np.eye(len(flat))]
    return np.array(columns)


def tanh_problem(random):
    """One whose limit the reference reaches and stands alone: drawn until there is one."""
    while True:
        inputs = random.normal(size=(40, 2))
        teacher = as_units(2 * random.normal(size=6))
        targets = np.tanh(inputs @ teacher[0].T) @ teacher[1].T + 0.1 * random.normal(size=(40, 1))
        hidden, out = as_units(random.normal(size=6))
        hidden[1], out[:, 1] = hidden[0], out[:, 0]
        apart = decades(random, -5, -1)
        start = np.concatenate([hidden.ravel(), out.ravel()]) + apart * random.normal(size=6)
        limit = tanh_limit(start, inputs, targets)
        if limit is not None:
            return {
                "objective": tw.Objective(tanh_units, tw.losses.squared_error, inputs, targets),
                "start": [jnp.asarray(w) for w in as_units(start)],
                "limit": limit,
                "index": 0,
                "unit": 1.0,
                "what": {"apart": apart},
            }


def tanh_limit(start, *data):
    point = solve_ivp(
        lambda t, p: -tanh_slope(p, *data),
        (0, TANH_END),
        start,
        "LSODA",
        rtol=1e-12,
        atol=1e-14,
        jac=lambda t, p: -tanh_hessian(p, *data),
    ).y[:, -1]
    if np.linalg.eigvalsh(tanh_hessian(point, *data))[0] < 20 / TANH_END:
        return None
    way = 0.0
    for _ in range(5):
        step = np.linalg.solve(tanh_hessian(point, *data), tanh_slope(point, *data))
        point, way = point - step, way + np.linalg.norm(step)
    return point if way < 1e-6 else None


def drawn(seed):
    """A landscape, a start, its true limit and a tolerance."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    if kind == "wide":
        problem = wide_problem(random)
    elif kind == "linear network":
        problem = linear_network_problem(random)
    elif kind == "chain":
        problem = chain_problem(random)
    elif kind == "tanh network":
        problem = tanh_problem(random)
    elif kind == "float32":
        coupled = random.choice(["rotated", "coupled"])
        problem = polynomial_problem(coupled, random, dtype=np.float32)
    else:
        problem = polynomial_problem(kind, random, symmetric=kind == "symmetric")
    finest = -6 if kind == "float32" else -12
    problem["tolerance"] = float(problem["unit"] * decades(random, finest, -2))
    return kind, problem


def judged(seed):
    """What `until` says about one landscape, beside what is true."""
    kind, problem = drawn(seed)
    cpu = time.process_time()
    flow = tw.integrate(
        tw.GradientFlow(),
        problem["objective"],
        problem["start"],
        until=tw.until.gradient_norm(problem["tolerance"]),
    )
    cpu = time.process_time() - cpu
    end = np.concatenate([np.ravel(leaf[-1]) for leaf in jax.tree.leaves(flow.params)])
    end = end.astype(float)
    assert flow.error is not None
    limit, reported = flow.limit, float(flow.error[-1])
    row = {
        "seed": seed,
        "kind": kind,
        **problem["what"],
        "tolerance": problem["tolerance"],
        "time": float(flow.times[-1]),
        "status": flow.status.kind,
        "message": flow.status.message,
        "reported": reported,
        "found": bool(limit is not None and limit.found),
        "index": None if limit is None else limit.index,
        "gradients": flow.stats.gradients + flow.stats.error_gradients,
        "cpu_seconds": cpu,
    }
    # What a conserved quantity or an eigenvector says is itself known up to rounding only.
    eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(problem["start"]))).eps)
    slack = 16 * eps * np.linalg.norm(problem["limit"])
    row["true"] = float(np.linalg.norm(end - problem["limit"]))
    row["true_index"] = problem["index"]
    # An end of unknown or doubtful error is near the limit only if it is the limit.
    known = reported if np.isfinite(reported) and flow.status.kind == "completed" else 0.0
    if limit is None:
        verdict = "stopped"
    elif limit.found and row["true"] > reported + slack:
        verdict = "WRONG: too far"
    elif limit.found and limit.index != problem["index"]:
        verdict = "WRONG: index"
    elif not limit.found and row["true"] <= known + slack and "leaves" in flow.status.message:
        verdict = "WRONG: does not leave"
    elif flow.status.kind != "completed":
        verdict = "not sure"
    elif limit.found:
        verdict = "arrived"
    elif limit.index:
        verdict = "passing a saddle"
    else:
        verdict = "not found"
    return {**row, "verdict": verdict}


def summary(rows):
    """Print and return how often each verdict was given, by kind."""
    table = {}
    for kind in (*KINDS, "all"):
        chosen = [row for row in rows if kind in ("all", row["kind"])]
        verdicts = collections.Counter(row["verdict"] for row in chosen)
        spent = [row["gradients"] for row in chosen]
        if chosen:
            table[kind] = {
                "count": len(chosen),
                "wrong": sum(n for verdict, n in verdicts.items() if "WRONG" in verdict),
                "verdicts": dict(verdicts),
                "median_gradients": float(np.median(spent)),
                "gradients": int(np.sum(spent)),
            }
            share = ", ".join(f"{n} {verdict}" for verdict, n in sorted(verdicts.items()))
            print(f"{kind:15s} {len(chosen):4d}: {share}; gradients {np.median(spent):,.0f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="landscapes")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    start, rows = time.perf_counter(), []
    for seed in range(arguments.first, arguments.first + arguments.count):
        row = judged(seed)
        rows.append(row)
        print(
            f"{seed:4d} {row['kind']:15s} {row['verdict']:18s} tolerance {row['tolerance']:.1e}"
            f" true {row.get('true', np.nan):.1e} reported {row['reported']:.1e}"
            f" {row['gradients']:,} gradients, {row['cpu_seconds']:.1f} s",
            flush=True,
        )
    table = summary(rows)
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s")
    if arguments.json:
        result = {"summary": table, "seconds": seconds, "rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
