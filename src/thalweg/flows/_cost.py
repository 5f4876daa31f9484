"""How many evaluations of the vector field a solver makes."""

from fractions import Fraction

import diffrax
from jaxtyping import Array, Int, PyTree

from ..solvers import AveragedMidpoint, CountedSolver, no_average


def cost_is_known(solver: diffrax.AbstractSolver) -> bool:
    """Whether the counts below are exact: explicit Runge-Kutta methods and our own."""
    return isinstance(solver, (diffrax.AbstractERK, CountedSolver, AveragedMidpoint))


def evaluation_price(solver: diffrax.AbstractSolver) -> Fraction:
    """The price of an evaluation in gradients: a mean over a segment takes another pass forward."""
    averages = isinstance(solver, AveragedMidpoint) and solver.average is not no_average
    return Fraction(4, 3) if averages else Fraction(1)


def initial_evaluations(solver: diffrax.AbstractSolver, state: PyTree) -> Int[Array, ""] | int:
    """Evaluations at the first point that no later attempt repeats, given the first state."""
    if isinstance(solver, CountedSolver):
        return solver.evaluations(state)
    return 0 if isinstance(solver, diffrax.AbstractERK) else 1


def attempt_evaluations(
    solver: diffrax.AbstractSolver, before: PyTree, after: PyTree
) -> Int[Array, ""] | int:
    """Evaluations of one attempted step, given the solver's states before and after it."""
    if isinstance(solver, CountedSolver):
        return solver.evaluations(after) - solver.evaluations(before)
    if isinstance(solver, AveragedMidpoint):
        return 1
    if isinstance(solver, diffrax.AbstractERK):
        tableau = tableau_of(solver)
        if not tableau.fsal:
            return tableau.num_stages
        # The last stage of a step is the first of the next, once there was an accepted one.
        afresh, _ = before
        return tableau.num_stages - 1 + afresh.astype(int)
    return 0


def after_rejection(solver: diffrax.AbstractSolver, before: PyTree, after: PyTree) -> PyTree:
    """The solver's state to retry a rejected step from."""
    if isinstance(solver, CountedSolver):
        return solver.after_rejection(before, after)
    return before


def tableau_of(
    solver: diffrax.AbstractERK | type[diffrax.AbstractERK],
) -> diffrax.ButcherTableau:
    """The coefficients of an explicit Runge-Kutta method."""
    tableau = solver.tableau
    assert isinstance(tableau, diffrax.ButcherTableau)
    return tableau
