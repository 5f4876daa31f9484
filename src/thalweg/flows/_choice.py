"""Which solvers follow a flow, and when one takes over from the other.

Where stability limits the steps of a classical pair, the flow is stiff and a stabilised method goes
on; where the stabilised method takes steps that the classical pair could take too, the
higher-order pair goes on. Both signs are read off steps that are made anyway, so looking is free.
"""

from dataclasses import dataclass
from typing import NamedTuple, get_origin

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, PyTree

from .._checks import check_instance
from .._trees import tree_norm
from ..objective import Kinks, Objective
from ..solvers import BDF, RKC2, RKC4, AveragedMidpoint, StabilisedSolver, no_average
from ._base import Flow
from ._cost import tableau_of
from ._lean import LeanMethod
from ._march import March, never_unsuited
from ._method import Method

# A single step tells nothing about its own error: the horizon takes at least this many.
_FEWEST_STEPS = 4
# Parameters from which on memory comes before everything else.
_LARGE = 2_000_000
# From these tolerances on, oscillations are cheaper with a pair of order five than of order eight.
_CRUDE_OSCILLATIONS = 3e-4
# From these tolerances on, a stabilised method alone is cheaper than with a pair beside it.
_CRUDE = 5e-3


class _Duo(NamedTuple):
    """A classical pair and a stabilised method that take turns, for an `rtol` from `finest` up.

    A step of the pair with a larger step size x spectral radius than `pressed` is held down by
    stability; one of the stabilised method with a smaller one than `idle`, the pair could make as
    well. Their tolerances are `pair_share` and `share` of the ones given, such that neither
    dominates the error: the pair's steps are cheap, few, and at the start, where errors count for
    the whole path.
    """

    finest: float
    pair: type[diffrax.AbstractERK]
    pressed: float
    pair_share: float
    stabilised: type[RKC2] | type[RKC4]
    idle: float
    share: float


# Chosen by benchmarks/flow_work_precision.py.
_DUOS = (
    _Duo(1e-4, diffrax.Bosh3, 1.7, 0.15, RKC2, 2.0, 1.0),
    _Duo(1.5e-5, diffrax.Tsit5, 2.4, 1.0, RKC2, 2.0, 1.0),
    _Duo(5e-6, diffrax.Tsit5, 2.4, 0.2, RKC4, 4.0, 10.0),
    _Duo(0.0, diffrax.Dopri8, 3.5, 10.0, RKC4, 4.0, 10.0),
)


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
    `kinks`, a method that averages over them, if they can be read; for oscillations a classical
    pair; else such a pair and, where it can help, a stabilised method.

    The choice is for an `rtol` of `accuracy`. `stride` lengthens the first step and the longest
    one, which tolerances do not decide.
    """
    longest = stride * t_end / _FEWEST_STEPS
    lean = flow.real_spectrum and not kinks.exist and size >= _LARGE
    if lean and (solver is None or type(solver) is RKC2):
        return LeanMethod(flow, rtol, atol, t_end, longest, stride, solver or RKC2())

    def march(candidate, unsuited=never_unsuited, share=1.0):
        # As arrays, so that solution and companion share what is compiled.
        numbers = np.array([share * rtol, share * atol, t_end, longest, stride], dtype)
        own_rtol, own_atol, end, longest_step, eagerness = map(jnp.asarray, numbers)
        if isinstance(candidate, StabilisedSolver):
            # Nor may both be held to the same steps by the stages that they are allowed.
            allowed = jnp.asarray(round(stride * candidate.max_stages))
            candidate = eqx.tree_at(lambda s: s.max_stages, candidate, allowed)
        if isinstance(candidate, BDF):
            candidate = BDF(own_rtol, own_atol)
        return March(flow, candidate, own_rtol, own_atol, end, longest_step, eagerness, unsuited)

    if isinstance(solver, BDF):
        if not flow.real_spectrum:
            raise TypeError(f"solver: BDF needs a symmetric Jacobian, which {flow.name} has not.")
        # The error follows the tolerance less closely than that of a method of one order.
        return Method((march(solver, share=stride),))
    if solver is not None:
        return Method((march(with_tolerances(solver, rtol, atol)),))
    if kinks.exist:
        average = _Along(flow) if kinks.read else no_average
        return Method((march(AveragedMidpoint(average)),))
    if not flow.real_spectrum:
        crude = accuracy >= _CRUDE_OSCILLATIONS
        return Method((march(diffrax.Tsit5() if crude else diffrax.Dopri8()),))
    if accuracy >= _CRUDE:
        return Method((march(RKC2()),))
    duo = next(duo for duo in _DUOS if accuracy >= duo.finest)
    pair = march(duo.pair(), _Pressed(duo.pair, duo.pressed), duo.pair_share)
    return Method((pair, march(duo.stabilised(), _Idle(duo.idle), duo.share)))


class _Along(eqx.Module):
    """What averages a flow's field: its landscape along the parameters' displacement."""

    flow: Flow

    def __call__(self, objective: Objective, displacement: PyTree[Array]):
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


@dataclass(frozen=True)
class _Pressed:
    """Whether stability, not accuracy, keeps the steps of a classical pair short.

    The ratio of the differences between the last stages, of the field and of the points where it
    is taken, estimates step size x spectral radius for free (Hairer and Wanner, Solving Ordinary
    Differential Equations II, section IV.2). Stages at different times differ by the solution's own
    motion as well; second differences of three leave its bend alone.
    """

    pair: type[diffrax.AbstractERK]
    limit: float

    def __call__(self, state, h, dense_info, solver_state):
        fields, points = self._differences()

        def norm(row):
            return tree_norm(
                jax.tree.map(
                    lambda k: jnp.tensordot(jnp.asarray(row, k.dtype), k, axes=1), dense_info["k"]
                )
            )

        return norm(fields) > self.limit * norm(points)

    def _differences(self):
        """Both differences as sums over the stages' fields."""
        tableau = tableau_of(self.pair)
        stages = tableau.num_stages
        rows = np.zeros((stages, stages))
        for row, given in zip(rows[1:], tableau.a_lower, strict=True):
            row[: len(given)] = given
        a, b, c = tableau.c[-3:]
        fields = np.zeros(stages)
        if b == c:
            fields[-2:] = -1, 1
        else:
            second = (c - a) / (b - a)
            fields[-3:] = second - 1, -second, 1
        return fields, fields @ rows


@dataclass(frozen=True)
class _Idle:
    """Whether a stabilised method makes steps that the classical pair could make as well."""

    limit: float

    def __call__(self, state, h, dense_info, solver_state):
        return h * solver_state.radius.value < self.limit
