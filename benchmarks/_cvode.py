"""CVODE of SUNDIALS along a flow: the strongest peer where it is stiff.

The row is that of `_methods.py`. Needs scikit-sundae (`pip install "thalweg[benchmark]"`).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from sksundae.cvode import CVODE, CVODEJacTimes

import thalweg as tw


def with_cvode(problem, t1, rtol, method, dimensions=5, exact=False, flow=None):
    """With Newton-GMRES and `exact` products (2 each), or its own difference quotients (1)."""
    objective, params = problem
    flow = flow or tw.GradientFlow()
    start, unravel = ravel_pytree(flow.initial_state(params))
    derivative = jax.jit(
        lambda y: ravel_pytree(flow.vector_field(jnp.zeros(()), unravel(y), objective))[0]
    )
    product = jax.jit(lambda y, v: jax.jvp(derivative, (y,), (v,))[1])
    spent = 0

    def field(t, y, out):
        nonlocal spent
        spent += 1
        out[:] = np.asarray(derivative(y))

    def times(t, y, f, v, out):
        nonlocal spent
        spent += 2
        out[:] = np.asarray(product(y, v))

    solver = CVODE(
        field,
        method=method,
        linsolver="gmres",
        krylov_dim=dimensions,
        jactimes=CVODEJacTimes(None, times) if exact else None,
        rtol=rtol,
        atol=rtol / 10,
        max_num_steps=500_000,
    )
    jax.block_until_ready((derivative(start), product(start, start)))
    begin = time.perf_counter()
    solution = solver.solve(np.array([0.0, t1]), np.asarray(start))
    seconds = time.perf_counter() - begin
    return {
        "gradients": spent,
        "steps": len(solution.t) - 1,
        "seconds": seconds,
        "end": np.asarray(ravel_pytree(flow.params(unravel(solution.y[-1])))[0])
        if solution.success
        else None,
        "note": "" if solution.success else solution.message,
    }
