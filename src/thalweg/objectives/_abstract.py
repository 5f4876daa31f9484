"""What every landscape is: a function of the parameters, and what is known of it."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._checks import check_precision
from .._kinks import has_kinks, kink_pattern, mean_over_segment, unread_operations
from .._pickling import state_by_name
from .._precision import in_full_precision
from .._roughness import ROUGHNESS_COST, is_rough
from .._trees import check_digits, check_params, tree_norm


class Kinks(NamedTuple):
    """Whether a landscape has kinks (`exist`), can be averaged over them since they were read off
    the computation (`read`), and how many gradients it took to know.
    """

    exist: bool
    read: bool
    gradients: int


class AbstractObjective(eqx.Module):
    """A landscape f(theta), without any data being assumed.

    A subclass has to define `value` and `gradient`. Everything else follows from these two by
    automatic differentiation, and can be replaced by something that costs less. `params` is any
    PyTree of floating-point arrays. Every method is a pure function of its arguments that JAX can
    trace.

        class Quadratic(tw.AbstractObjective):
            matrix: jax.Array

            def value(self, params):
                return params @ self.matrix @ params / 2

            def gradient(self, params):
                return self.matrix @ params

    Flows, optimizers, `until`, eigenvalues, certificates and distance laws ask for no more. For a
    function that is at hand use [`thalweg.FunctionObjective`][].
    """

    def __getstate__(self):
        return state_by_name(self)

    # Identity, so that a bound method such as `objective.value` can be handed to `jax.jit`.

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self is other

    @abc.abstractmethod
    def value(self, params: PyTree) -> Float[Array, ""]:
        """f(theta)."""

    @abc.abstractmethod
    def gradient(self, params: PyTree) -> PyTree:
        """The gradient of f, with the structure of `params`. Costs 1 gradient."""

    def value_and_gradient(self, params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """f(theta) and its gradient."""
        return self.value(params), self.gradient(params)

    def hvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """Hessian-vector product. Costs 2 gradients (forward over reverse)."""
        return jax.jvp(self.gradient, (params,), (vector,))[1]

    def mean_gradient(self, params: PyTree, displacement: PyTree) -> PyTree:
        """The gradient, averaged over the segment `params +- displacement / 2`, as far as it jumps.

        At a kink (ReLU, max-pooling, an absolute value) on the segment both one-sided derivatives
        enter, weighted by the parts of the segment that they hold on; everything else is taken at
        `params`. Without a kink on the segment it is `gradient(params)`. Costs 4/3 of a gradient:
        one more pass forward.
        """
        return jax.grad(lambda p: mean_over_segment(self.value, p, displacement))(params)

    def along(self, displacement: PyTree) -> "AbstractObjective":
        """The same landscape, with every gradient the mean over a segment: see `mean_gradient`."""
        return Segment(self, displacement)

    def kinks(self, params: PyTree) -> Kinks:
        """Whether the landscape has kinks.

        They are read off the computation, which costs nothing. Where they are hidden (in loops,
        branches, foreign code, orderings, derivatives of its own), they are felt for: 66 gradients
        along two short paths from `params`.
        """
        return self._kinks_of(self.value, params)

    def _kinks_of(self, function: Any, params: PyTree) -> Kinks:
        if has_kinks(function, params):
            return Kinks(exist=True, read=True, gradients=0)
        if not unread_operations(function, params):
            return Kinks(exist=False, read=False, gradients=0)
        return Kinks(bool(is_rough(self.gradient, params)), False, ROUGHNESS_COST)

    def kink_pattern(self, params: PyTree) -> list[Bool[Array, "..."]]:
        """For every kink, the side that `params` are on.

        One array for each operation with a kink: whether a ReLU is active, which of its arguments
        is a maximum. Empty for a smooth landscape, and for one whose kinks cannot be read.
        """
        return kink_pattern(self.value, params)

    @property
    def data(self) -> tuple[Array, ...]:
        """The arrays of numbers that the landscape is made of, such as inputs and targets."""
        return tuple(leaf for leaf in jax.tree.leaves(self) if eqx.is_array(leaf))

    def gradient_scale(self, params: PyTree) -> Float[Array, ""]:
        """About the size of the terms that a gradient is the sum of. Costs 3 gradients.

        The rounding of a gradient is a few units in the last place of a number of this size, also
        near a critical point, where the terms cancel.
        """
        steep, bent = jax.jvp(self.gradient, (params,), (params,))
        return tree_norm(jax.tree.map(lambda a, b: jnp.abs(a) + jnp.abs(b), steep, bent))

    def same(self, other: "AbstractObjective") -> bool:
        """Whether the other one is made of the same functions and numbers."""
        return self is other or (type(self) is type(other) and bool(eqx.tree_equal(self, other)))

    @in_full_precision
    def check(self, params: PyTree) -> None:
        """Evaluate once and refuse what would make every later number meaningless.

        **Raises:** TypeError for parameters or values that are not real floating-point arrays with
        at least the digits of float32; ValueError for parameters or a value that are not finite, a
        value that is not a single number, two values that differ at the same parameters, and a
        gradient whose arrays do not have the shapes of those of `params`. (A gradient that is not
        finite makes a flow diverge where it starts.)
        """
        check_params(params)
        check_digits(params)
        value = self.value(params)
        _check_number(value)
        if not bool(jnp.isfinite(value)):
            raise ValueError("objective: the value is NaN or infinity at these parameters.")
        if not bool(value == self.value(params)):
            raise ValueError(
                "objective: two calls with the same parameters differ, so there is no landscape to"
                " follow. Switch off dropout and other randomness."
            )
        gradient = jax.eval_shape(self.gradient, params)
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (gradient, params)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"objective: the gradient has arrays of shape {shapes[0]}, and the parameters"
                f" {shapes[1]}."
            )


class Segment(AbstractObjective):
    """The landscape along a short segment of parameters: see `AbstractObjective.mean_gradient`."""

    objective: AbstractObjective
    displacement: PyTree[Array]

    def value(self, params: PyTree) -> Float[Array, ""]:
        """f at the middle of the segment."""
        return self.objective.value(params)

    def gradient(self, params: PyTree) -> PyTree:
        """The mean gradient over the segment with `params` in its middle."""
        return self.objective.mean_gradient(params, self.displacement)


def _check_number(value: Any) -> None:
    if not hasattr(value, "dtype") or jnp.shape(value) != ():
        shape = getattr(value, "shape", None)
        given = type(value).__name__ if shape is None else f"an array of shape {shape}"
        raise ValueError(f"objective: the value must be a single number, got {given}.")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"objective: expected a real floating-point value, got {value.dtype}; it must have"
            " derivatives."
        )
    check_precision(value.dtype, "objective")
