"""Ways to follow a gradient flow to its end, each with what it costs.

Every function takes a problem (an objective and the initial parameters) and a final time, and
returns a row: exact gradient-equivalents (one gradient 1, one Hessian-vector product 2), steps,
seconds without compilation, and the parameters at the end as a flat array, or None.
"""

import threading
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optimistix
from jax.flatten_util import ravel_pytree
from scipy.integrate import LSODA

import thalweg as tw

FORWARD = diffrax.ForwardMode()
# A pair at the limit of its stability may shorten its steps without end.
MOST_STEPS = 500_000


def timed(solve):
    """Run twice: once to compile, once to measure."""
    solve()
    start = time.perf_counter()
    result = solve()
    return result, time.perf_counter() - start


def with_thalweg(problem, t1, rtol):
    objective, params = problem

    def solve():
        flow = tw.integrate(
            tw.GradientFlow(), objective, params, save_at=[t1], rtol=rtol, atol=rtol / 10
        )
        return jax.block_until_ready(flow)

    flow, seconds = timed(solve)
    end = ravel_pytree(jax.tree.map(lambda x: x[-1], flow.params))[0]
    return {
        "gradients": flow.stats.gradients,
        "error_gradients": flow.stats.error_gradients,
        "steps": flow.stats.steps,
        "seconds": seconds,
        "reported": float(flow.error[-1]),
        "note": flow.stats.solver,
        "end": np.asarray(end),
    }


def with_explicit(problem, t1, rtol, solver):
    """An explicit solver of diffrax, under the same kind of controller as ours."""
    objective, params = problem
    theta, unravel = ravel_pytree(params)

    @eqx.filter_jit
    def run(theta, objective, t1):
        term = diffrax.ODETerm(lambda t, y, o: -ravel_pytree(o.gradient(unravel(y)))[0])
        controller = diffrax.PIDController(rtol=rtol, atol=rtol / 10, pcoeff=0.2, icoeff=0.5)
        return diffrax.diffeqsolve(
            term,
            solver,
            0.0,
            t1,
            None,
            theta,
            objective,
            stepsize_controller=controller,
            adjoint=FORWARD,
            max_steps=MOST_STEPS,
            throw=False,
        )

    # The final time is traced: a short run compiles what the long one uses.
    jax.block_until_ready(run(theta, objective, jnp.asarray(1e-3 * t1)))
    start = time.perf_counter()
    solution = jax.block_until_ready(run(theta, objective, jnp.asarray(t1)))
    seconds = time.perf_counter() - start
    steps = int(solution.stats["num_steps"])
    # First same as last: each attempt costs one less than its stages; three before the first.
    repeated = int(solver.tableau.fsal)
    arrived = solution.result == diffrax.RESULTS.successful
    return {
        "gradients": steps * (solver.tableau.num_stages - repeated) + 2 + repeated,
        "steps": int(solution.stats["num_accepted_steps"]),
        "seconds": seconds,
        "end": np.asarray(solution.ys[-1]) if arrived else None,
        "note": "" if arrived else f"gave up after {MOST_STEPS:,} steps",
    }


class Counter:
    """Counts evaluations on the host: gradients 1, Hessian-vector products 2."""

    def __init__(self):
        self.total = 0
        self.lock = threading.Lock()

    def add(self, amount):
        with self.lock:
            self.total += amount


def counted_field(objective, unravel, counter):
    """The flow's field on flat vectors, telling the counter of every evaluation and product."""

    def gradient(theta):
        return -ravel_pytree(objective.gradient(unravel(theta)))[0]

    @jax.custom_jvp
    def field(theta):
        jax.debug.callback(lambda _: counter.add(1), theta[0])
        return gradient(theta)

    @field.defjvp
    def field_jvp(primals, tangents):
        (theta,), (tangent,) = primals, tangents
        # Tied to the tangent, so that it counts each product, not each linearisation.
        jax.debug.callback(lambda _: counter.add(2), tangent[0])
        return field(theta), jax.jvp(gradient, (theta,), (tangent,))[1]

    return lambda t, y, args: field(y)


def with_kvaerno5(problem, t1, rtol):
    objective, params = problem
    theta, unravel = ravel_pytree(params)
    counter = Counter()
    atol = rtol / 10
    newton = optimistix.Newton(
        rtol=rtol, atol=atol, linear_solver=lineax.GMRES(rtol=1e-3 * rtol, atol=1e-3 * atol)
    )
    term = diffrax.ODETerm(counted_field(objective, unravel, counter))

    @eqx.filter_jit
    def run(theta):
        return diffrax.diffeqsolve(
            term,
            diffrax.Kvaerno5(root_finder=newton),
            0.0,
            t1,
            None,
            theta,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            adjoint=FORWARD,
            max_steps=None,
            throw=False,
        )

    start = time.perf_counter()
    solution = jax.block_until_ready(run(theta))
    jax.effects_barrier()
    return {
        "gradients": counter.total,
        "steps": int(solution.stats["num_accepted_steps"]),
        "seconds": time.perf_counter() - start,
        "end": np.asarray(solution.ys[-1]),
        "note": "with compilation",
    }


def with_lsoda(problem, t1, rtol, limit):
    objective, params = problem
    theta, unravel = ravel_pytree(params)
    gradient = jax.jit(lambda y: -ravel_pytree(objective.gradient(unravel(y)))[0])
    gradient(theta).block_until_ready()
    calls = 0

    class OutOfTime(Exception):
        pass

    def field(t, y):
        nonlocal calls
        calls += 1
        if time.perf_counter() - start > limit:
            raise OutOfTime
        return np.asarray(gradient(y))

    start = time.perf_counter()
    solver = LSODA(field, 0.0, np.asarray(theta), t1, rtol=rtol, atol=rtol / 10)
    steps = 0
    try:
        while solver.status == "running":
            solver.step()
            steps += 1
        note = "" if solver.status == "finished" else f"failed at t = {solver.t:.3g}"
    except OutOfTime:
        note = f"stopped after {limit:g} s at t = {solver.t:.3g}"
    return {
        "gradients": calls,
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "end": None if note else solver.y,
        "note": note,
    }


def with_rk4(problem, t1):
    """Fixed steps of the classical method at 1 / sharpness, looked up every 100 steps."""
    objective, params = problem
    every = 100

    @eqx.filter_jit
    def stretch(objective, params, direction, t, t1):
        def power(_, v):
            image = objective.hvp(params, v)
            size = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(image)))
            return jax.tree.map(lambda x: x / size, image)

        direction = jax.lax.fori_loop(0, 5, power, direction)
        image = objective.hvp(params, direction)
        sharpness = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(image)))
        h = jnp.minimum(1 / sharpness, (t1 - t) / every)

        def step(_, p):
            def slope(scale, k):
                moved = p if k is None else jax.tree.map(lambda x, d: x - scale * d, p, k)
                return objective.gradient(moved)

            k1 = slope(0, None)
            k2 = slope(h / 2, k1)
            k3 = slope(h / 2, k2)
            k4 = slope(h, k3)
            return jax.tree.map(
                lambda x, a, b, c, d: x - h / 6 * (a + 2 * b + 2 * c + d), p, k1, k2, k3, k4
            )

        return jax.lax.fori_loop(0, every, step, params), direction, t + every * h

    direction = objective.gradient(params)
    stretch(objective, params, direction, jnp.asarray(0.0), jnp.asarray(t1))
    start, t, gradients = time.perf_counter(), jnp.asarray(0.0), 1
    while t < t1 * (1 - 1e-12):
        params, direction, t = stretch(objective, params, direction, t, jnp.asarray(t1))
        gradients += 4 * every + 2 * 6
    return {
        "gradients": gradients,
        "steps": (gradients - 1) // (4 * every + 12) * every,
        "seconds": time.perf_counter() - start,
        "end": np.asarray(ravel_pytree(params)[0]),
    }
