"""How long the steps of the optimizers will take, told before they are made."""

import time

import jax

from .._numbers import significant
from .._precision import jit
from .plan import Plan

# Gradients that are timed; the fastest of them counts.
_TIMED = 3


def time_needed(plan: Plan) -> str:
    """One line for who starts the study. Costs four gradients and their compilation."""
    steps = sum(int(run.save_steps[-1]) for run in plan.runs)
    gradient = jit(lambda objective, params: objective.gradient(params))
    jax.block_until_ready(gradient(plan.objective, plan.params))
    took = []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        jax.block_until_ready(gradient(plan.objective, plan.params))
        took.append(time.perf_counter() - begun)
    one = min(took)
    return (
        f"time: {steps:,} steps of optimizers, at {significant(1e3 * one, 2)} ms for a gradient"
        f" about {significant(steps * one, 2)} s; what flows, laws and curvature take depends on"
        " the landscape, and most of a small study's time is compilation"
    )
