"""Which solver follows a flow."""

from typing import get_origin

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, PyTree

from .._checks import check_instance
from ..objectives import AbstractObjective, Kinks
from ..solvers import BDF, RKC2, RKC4, AveragedMidpoint, StabilisedSolver, no_average
from ._base import Flow
from ._lean import LeanMethod
from ._march import March
from ._method import Method

# A single step tells nothing about its own error: the horizon takes at least this many.
_FEWEST_STEPS = 4
# Parameters from which on memory comes before everything else.
_LARGE = 2_000_000
# From these tolerances on, oscillations are cheaper with a pair of order five than of order eight.
_CRUDE_OSCILLATIONS = 3e-4
# From these tolerances on, RKC2 is cheaper than RKC4.
_CRUDE = 1.5e-5
# The steps' tolerances, as parts of the ones given: errors of many steps add up in different ways.
_BDF_SHARE, _RKC2_SHARE, _RKC4_SHARE = 0.2, 1.0, 10.0


def choose_method(
    flow: Flow,
    solver: diffrax.AbstractSolver | None,
    rtol: float,
    atol: float,
    t_end: float,
    dtype: jnp.dtype,
    *,
    accuracy: float,
    kinks: Kinks,
    size: int,
    stride: float = 1.0,
) -> Method | LeanMethod:
    """The solver asked for; without one, what suits the field.

    For so many parameters, `size`, that their copies count, RKC2 with few of them; for a field with
    `kinks`, a method that averages over them, if they can be read; for a force with a symmetric
    Jacobian, BDF, unless oscillations last; for those a classical pair; else a stabilised method.

    The choice is for an `rtol` of `accuracy`. `stride` lengthens the first step and the longest
    one, which tolerances do not decide.
    """
    longest = stride * t_end / _FEWEST_STEPS
    lean = flow.real_spectrum and not kinks.exist and size >= _LARGE
    if lean and (solver is None or type(solver) is RKC2):
        return LeanMethod(flow, rtol, atol, t_end, longest, stride, solver or RKC2())

    def march(candidate, share=1.0):
        # As arrays, so that solution and companion share what is compiled.
        numbers = np.array([share * rtol, share * atol, t_end, longest, stride], dtype)
        own_rtol, own_atol, end, longest_step, eagerness = map(jnp.asarray, numbers)
        if isinstance(candidate, StabilisedSolver):
            # Nor may both be held to the same steps by the stages that they are allowed.
            allowed = jnp.asarray(round(stride * candidate.max_stages))
            candidate = eqx.tree_at(lambda s: s.max_stages, candidate, allowed)
        if isinstance(candidate, BDF):
            largest = jnp.asarray(candidate.largest * rtol / accuracy, dtype)
            candidate = BDF(own_rtol, own_atol, largest, candidate.equation)
        return March(flow, candidate, own_rtol, own_atol, end, longest_step, eagerness)

    equation = flow.equation
    if equation is None:
        if isinstance(solver, BDF):
            raise TypeError(
                f"solver: BDF cannot follow {flow.name}: it takes a force with a symmetric Jacobian"
                " and constant friction. Leave `solver` out, or pass diffrax.Dopri8()."
            )
    elif isinstance(solver, BDF) or (solver is None and not kinks.exist and flow.calm(t_end)):
        return Method(march(BDF(equation=equation), _BDF_SHARE))
    if solver is not None:
        return Method(march(with_tolerances(solver, rtol, atol)))
    if kinks.exist:
        average = _Along(flow) if kinks.read else no_average
        return Method(march(AveragedMidpoint(average)))
    if not flow.real_spectrum:
        crude = accuracy >= _CRUDE_OSCILLATIONS
        return Method(march(diffrax.Tsit5() if crude else diffrax.Dopri8()))
    if accuracy >= _CRUDE:
        return Method(march(RKC2(), _RKC2_SHARE))
    return Method(march(RKC4(), _RKC4_SHARE))


class _Along(eqx.Module):
    """What averages a flow's field: its landscape along the parameters' displacement."""

    flow: Flow

    def __call__(self, objective: AbstractObjective, displacement: PyTree[Array]):
        return objective.along(self.flow.params(displacement))


def check_solver(solver: diffrax.AbstractSolver) -> None:
    """Refuse a solver that cannot follow a flow with steps of its own choice.

    **Raises:** TypeError.
    """
    check_instance(solver, diffrax.AbstractSolver, "solver", "a diffrax solver")
    name = type(solver).__name__
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise TypeError(f"solver: {name} has no error estimate to choose its steps by.")
    if get_origin(solver.term_structure) is diffrax.MultiTerm:
        raise TypeError(f"solver: {name} needs a field in two parts; a flow has only one.")


def with_tolerances(
    solver: diffrax.AbstractSolver, rtol: float, atol: float
) -> diffrax.AbstractSolver:
    """An implicit solver whose root finder has no tolerances of its own gets those of the steps."""
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    given = {"rtol": rtol, "atol": atol, "norm": optimistix.rms_norm}
    # diffrax marks "as for the steps" by an object of its own in place of a number.
    mark = next(
        (v for v in (solver.root_finder.rtol, solver.root_finder.atol) if not eqx.is_array_like(v)),
        None,
    )
    names = [name for name in given if getattr(solver.root_finder, name) is mark]
    if mark is None or not names:
        return solver
    return eqx.tree_at(
        lambda s: [getattr(s.root_finder, name) for name in names],
        solver,
        [given[name] for name in names],
    )
