"""What stability alone costs a flow: stabilised solvers on prescribed steps.

    python benchmarks/price_of_stability.py [--t1 1000] [--json FILE]

The tanh network of `flow_work_precision.py`, squared error, from t = 10 on, on steps that grow in
proportion to time: no error control, no rejections, no search for the sharpness. Errors are
distances at the end over the distance moved since t = 0. So the numbers are a lower bound for what
explicit stabilised methods cost on this flow. `gradients` is what the solver spent with
room for a sharpness 2.5 times the estimate; `least` what it would have spent with the sharpness of
every step known in advance, since stages grow with the root of it.
"""

import argparse
import json
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _digits import digits_problem, environment
from jax.flatten_util import ravel_pytree

import thalweg as tw

T0 = 10.0
# The sharpness grows within long steps; with less room some of them are unstable.
ROOM = 2.5
SOLVERS = {tw.solvers.RKC2: (8, 12, 16, 24, 32, 40, 48), tw.solvers.RKC4: (4, 6, 8, 12, 16)}


@eqx.filter_jit
def march(objective, times, solver, y0):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, o: jax.tree.map(jnp.negative, o.gradient(y))),
        solver,
        times[0],
        times[-1],
        None,
        y0,
        objective,
        stepsize_controller=diffrax.StepTo(times),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        adjoint=diffrax.ForwardMode(),
    )
    last = jax.tree.map(lambda x: x[-1], solution.ys)
    return last, solver.evaluations(solution.solver_state)


def sharpness_along(objective, params, t1):
    """A function of time, between the values at ten times."""
    times = np.geomspace(T0, t1, 10)
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=times, rtol=1e-6)
    rows = [jax.tree.map(lambda x, i=i: x[i], flow.params) for i in range(len(times))]
    found = [tw.extreme_eigenvalues(objective, row, largest=1, smallest=0) for row in rows]
    values = [float(values.value[-1]) for values in found]
    return lambda t: np.interp(np.log(t), np.log(times), values)


def _flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--t1", type=float, default=1000.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    t1 = arguments.t1
    objective, params = digits_problem("squared error")
    sharpness = sharpness_along(objective, params, t1)
    print(f"sharpness {sharpness(T0):.3g} at t = {T0:g}, {sharpness(t1):.3g} at t = {t1:g}")
    exact = tw.integrate(tw.GradientFlow(), objective, params, save_at=[T0, t1], rtol=1e-10)
    begin, end = (jax.tree.map(lambda x, i=i: x[i], exact.params) for i in range(2))
    moved = np.linalg.norm(_flat(end) - _flat(params))
    rows = []
    print(f"{'solver':8s} {'steps':>6s} {'gradients':>10s} {'least':>6s} {'error/moved':>12s}")
    for solver, counts in SOLVERS.items():
        for steps in counts:
            times = np.geomspace(T0, t1, steps + 1)
            times[[0, -1]] = T0, t1
            last, spent = march(objective, jnp.asarray(times), solver(safety=ROOM), begin)
            # Stages are in proportion to the root of step times sharpness.
            reach = np.diff(times) * sharpness(times[1:])
            wanted = np.sum(np.sqrt(reach))
            given = np.sum(np.sqrt(ROOM * np.diff(times) * sharpness(times[:-1])))
            least = int(int(spent) * min(wanted / given, 1.0))
            error = float(np.linalg.norm(_flat(last) - _flat(end)) / moved)
            rows.append(
                {
                    "solver": solver.__name__,
                    "steps": steps,
                    "gradients": int(spent),
                    "least": least,
                    "error": error,
                }
            )
            print(
                f"{solver.__name__:8s} {steps:>6d} {int(spent):>10,} {least:>6,} {error:>12.1e}",
                flush=True,
            )
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
