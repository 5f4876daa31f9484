"""How many evaluations of the vector field a solver makes."""

import diffrax
from jaxtyping import Array, Int, PyTree

from ..solvers import StabilisedSolver


def cost_is_known(solver: diffrax.AbstractSolver) -> bool:
    """Whether the counts below are exact: explicit Runge-Kutta methods and our own."""
    return isinstance(solver, (diffrax.AbstractERK, StabilisedSolver))


def initial_evaluations(solver: diffrax.AbstractSolver) -> int:
    """Evaluations at the first point that no later attempt repeats."""
    if isinstance(solver, diffrax.AbstractERK):
        return int(_tableau(solver).fsal)
    return 1


def attempt_evaluations(
    solver: diffrax.AbstractSolver, before: PyTree, after: PyTree
) -> Int[Array, ""] | int:
    """Evaluations of one attempted step, given the solver's states before and after it."""
    if isinstance(solver, StabilisedSolver):
        return solver.evaluations(after) - solver.evaluations(before)
    if isinstance(solver, diffrax.AbstractERK):
        tableau = _tableau(solver)
        return tableau.num_stages - int(tableau.fsal)
    return 0


def after_rejection(solver: diffrax.AbstractSolver, before: PyTree, after: PyTree) -> PyTree:
    """The solver's state to retry a rejected step from."""
    if isinstance(solver, StabilisedSolver):
        return solver.after_rejection(before, after)
    return before


def _tableau(solver: diffrax.AbstractERK) -> diffrax.ButcherTableau:
    tableau = solver.tableau
    assert isinstance(tableau, diffrax.ButcherTableau)
    return tableau
