"""Heavy-ball flow of a network: what accuracy costs, by BDF, explicit pairs and CVODE.

    python benchmarks/momentum_flows.py [--frictions 0.3 1 10] [--times 30 100 1000]
        [--tolerances 1e-3 1e-5 1e-7] [--json FILE]

The tanh network of `flow_work_precision.py`, squared error, sharpness about 6. Gradients are those
of the solution; those of the error estimate stand beside them. Errors are Euclidean distances over
all parameters to a reference (Dopri8 at `rtol` 1e-10) at the final time, divided by the distance
moved. CVODE follows the flow as a system of first order, with Newton-GMRES and its own difference
quotients.
"""

import argparse
import json
from pathlib import Path

import diffrax
import jax
import numpy as np
from _cvode import with_cvode
from _digits import digits_problem, environment
from jax.flatten_util import ravel_pytree

import thalweg as tw

SOLVERS = {
    "BDF": tw.solvers.BDF(),
    "Dopri8": diffrax.Dopri8(),
    "Tsit5": diffrax.Tsit5(),
}


def last(run):
    return np.asarray(ravel_pytree(jax.tree.map(lambda p: p[-1], run.params))[0])


def rows_for(friction, t1, tolerances):
    objective, params = digits_problem("squared error")
    flow = tw.HeavyBallFlow(friction)
    reference = tw.integrate(flow, objective, params, t1, rtol=1e-10, solver=diffrax.Dopri8())
    truth, start = last(reference), np.asarray(ravel_pytree(params)[0])
    moved = np.linalg.norm(truth - start)
    chosen = tw.integrate(flow, objective, params, t1, rtol=1e-3).stats.solver

    def row(method, rtol, gradients, end, **more):
        error = None if end is None else float(np.linalg.norm(end - truth) / moved)
        return {
            "friction": friction,
            "t1": t1,
            "chosen": chosen,
            "method": method,
            "rtol": rtol,
            "gradients": gradients,
            "error": error,
            **more,
        }

    for rtol in tolerances:
        for name, solver in SOLVERS.items():
            run = tw.integrate(flow, objective, params, t1, rtol=rtol, solver=solver)
            yield row(
                name,
                rtol,
                run.stats.gradients,
                last(run),
                error_gradients=run.stats.error_gradients,
                reported=float(np.asarray(run.error)[-1] / moved),
            )
        peer = with_cvode((objective, params), t1, rtol, "BDF", 20, flow=flow)
        yield row("CVODE BDF", rtol, peer["gradients"], peer["end"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frictions", type=float, nargs="+", default=[0.3, 1.0, 10.0])
    parser.add_argument("--times", type=float, nargs="+", default=[30.0, 100.0, 1000.0])
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-3, 1e-5, 1e-7])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print("friction     t1  method      rtol  gradients  estimate      error   reported")
    for friction in arguments.frictions:
        for t1 in arguments.times:
            for row in rows_for(friction, t1, arguments.tolerances):
                rows.append(row)
                told = "failed" if row["error"] is None else f"{row['error']:.1e}"
                reported = f"{row['reported']:.1e}" if "reported" in row else ""
                print(
                    f"{friction:8g} {t1:6g}  {row['method']:10} {row['rtol']:.0e}"
                    f" {row['gradients']:10d} {row.get('error_gradients', ''):>9}"
                    f" {told:>10} {reported:>10}",
                    flush=True,
                )
    about = environment("scikit-sundae")
    print(about)
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
