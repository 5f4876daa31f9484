"""What all stabilised explicit solvers share: the spectral radius, and what a step tells."""

import abc
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._counted import CountedSolver
from ._radius import SpectralRadius


class StabilisedState(eqx.Module):
    """What one step hands to the next.

    `field`: the vector field at the current point; `radius`: what is known of the spectral radius;
    `evaluations`: evaluations of the vector field so far, radius estimates included; `stages`: the
    evaluations of the last step.
    """

    field: PyTree[Array]
    radius: SpectralRadius
    evaluations: Int[Array, ""]
    stages: Int[Array, ""]


class Advance(eqx.Module):
    """One step as a method made it: the end, the field there, its error, and what was spent."""

    y1: PyTree[Array]
    f1: PyTree[Array]
    y_error: PyTree[Array]
    dense_info: dict[str, PyTree[Array]]
    evaluations: Int[Array, ""]
    possible: Bool[Array, ""]


class _Displaced(diffrax.AbstractTerm):
    """A term whose state is counted from another place than zero."""

    term: diffrax.AbstractTerm
    origin: PyTree[Array]

    def vf(self, t, y, args):
        return self.term.vf(t, jax.tree.map(jnp.add, self.origin, y), args)

    def contr(self, t0, t1, **kwargs):
        return self.term.contr(t0, t1, **kwargs)

    def prod(self, vf, control):
        return self.term.prod(vf, control)


class StabilisedSolver(CountedSolver):
    """An explicit solver whose stability interval grows with the number of its stages.

    An ordinary diffrax solver: pass it to `diffrax.diffeqsolve` with an adaptive step size
    controller and any `ODETerm` whose Jacobian has eigenvalues near the negative real axis.
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    safety: eqx.AbstractVar[float]
    max_stages: eqx.AbstractVar[int | Int[Array, ""]]

    @abc.abstractmethod
    def advance(
        self,
        terms: diffrax.AbstractTerm,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: PyTree[Array],
        args: PyTree,
        f0: PyTree[Array],
        reach: Float[Array, ""],
    ) -> Advance:
        """One step that is stable on `[-reach, 0]`, given the field `f0` at its start.

        States are counted from the start of the step, `y0 = 0`: the many stages then round off what
        the step adds, not the parameters themselves.

        A step that would need more stages than are allowed says that it is not `possible`, so that
        the controller tries a shorter one.
        """

    @abc.abstractmethod
    def placed(self, dense_info: dict[str, Any], y0: PyTree[Array]) -> dict[str, Any]:
        """What `advance` leaves for interpolation, with states counted from zero again."""

    def init(self, terms, t0, t1, y0, args) -> StabilisedState:
        del t1
        return StabilisedState(
            field=terms.vf(t0, y0, args),
            radius=SpectralRadius.unknown(y0),
            evaluations=jnp.asarray(1),
            stages=jnp.asarray(0),
        )

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        f0 = jax.lax.cond(made_jump, lambda: terms.vf(t0, y0, args), lambda: solver_state.field)
        radius, spent = jax.lax.cond(
            solver_state.radius.due | made_jump,
            lambda: solver_state.radius.estimated(lambda y: terms.vf(t0, y, args), y0, f0),
            lambda: (solver_state.radius, jnp.asarray(0)),
        )
        reach = jnp.abs(t1 - t0) * self.safety * radius.value
        start, end = jnp.asarray(t0), jnp.asarray(t1)
        still = jax.tree.map(jnp.zeros_like, y0)
        made = self.advance(_Displaced(terms, y0), start, end, still, args, f0, reach)
        y1 = jax.tree.map(jnp.add, y0, made.y1)
        y_error = jax.tree.map(lambda e: jnp.where(made.possible, e, jnp.inf), made.y_error)
        spent = spent + made.evaluations + jnp.asarray(made_jump, int)
        state = StabilisedState(
            field=made.f1,
            radius=radius.used(made.evaluations),
            evaluations=solver_state.evaluations + spent,
            stages=made.evaluations,
        )
        dense_info = self.placed(made.dense_info, y0)
        return y1, y_error, dense_info, state, diffrax.RESULTS.successful

    def evaluations(self, state):
        """Evaluations of the vector field since `init`, spectral radius estimates included."""
        return state.evaluations

    def spectral_radius(self, state):
        """The estimate that the last step relied on."""
        return state.radius.value

    def after_rejection(self, before, after):
        """The state before, with what the rejected attempt learned about the spectrum.

        A rejection may mean that the radius was underestimated: unless it was fresh, it is due.
        """
        radius = after.radius
        age = jnp.where(radius.age <= after.stages, radius.age, radius.patience)
        radius = eqx.tree_at(lambda r: r.age, radius, age)
        return eqx.tree_at(lambda s: (s.radius, s.evaluations), before, (radius, after.evaluations))
