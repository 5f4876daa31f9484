"""Landscapes that are functions of the parameters and nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._precision import in_full_precision
from .._trees import tree_dot, tree_dtype, tree_norm, tree_scattered, tree_sub
from ._abstract import AbstractObjective


class FunctionObjective(AbstractObjective):
    """A function of the parameters as a landscape.

        rosenbrock = tw.FunctionObjective(lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2)
        flow = tw.integrate(tw.GradientFlow(), rosenbrock, jnp.array([-1.0, 1.0]), t1=10.0)

    **Arguments:**

    - `function`: `params -> number`, written in JAX; `params` is any PyTree of floating-point
        arrays.
    - `gradient`: `params -> gradient`, with the structure of `params`. By automatic differentiation
        if it is left out.
    - `hessian`: `params -> matrix`, symmetric, of shape `(parameters, parameters)` in the order of
        `jax.flatten_util.ravel_pytree(params)`. Without it Hessian-vector products are made by
        automatic differentiation.

    Derivatives that are given are compared with those of `function` before they are used.

    **Raises:** TypeError for what cannot be called.
    """

    function: Callable[[PyTree], Float[Array, ""]]
    given_gradient: Callable[[PyTree], PyTree] | None
    given_hessian: Callable[[PyTree], Float[Array, "parameters parameters"]] | None

    def __init__(
        self,
        function: Callable[[PyTree], Any],
        *,
        gradient: Callable[[PyTree], Any] | None = None,
        hessian: Callable[[PyTree], Any] | None = None,
    ):
        given = (("function", function), ("gradient", gradient), ("hessian", hessian))
        for field, value in given:
            if isinstance(value, type) or not (value is None or callable(value)):
                raise TypeError(f"{field}: expected a function of the parameters, got {value!r}.")
        if function is None:
            raise TypeError("function: expected a function of the parameters, got None.")
        self.function = function
        self.given_gradient = gradient
        self.given_hessian = hessian

    @in_full_precision
    def value(self, params: PyTree) -> Float[Array, ""]:
        """f(theta)."""
        return self.function(params)

    @in_full_precision
    def gradient(self, params: PyTree) -> PyTree:
        """The gradient of f, with the structure of `params`. Costs 1 gradient."""
        return (self.given_gradient or jax.grad(self.function))(params)

    @in_full_precision
    def value_and_gradient(self, params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """f(theta) and its gradient, in one pass where the gradient is not given."""
        if self.given_gradient is None:
            return jax.value_and_grad(self.function)(params)
        return self.function(params), self.given_gradient(params)

    @in_full_precision
    def hvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """Hessian-vector product. Costs 2 gradients."""
        if self.given_hessian is None:
            return jax.jvp(self.gradient, (params,), (vector,))[1]
        flat, restore = ravel_pytree(vector)
        return restore(self.given_hessian(params) @ flat)

    @in_full_precision
    def check(self, params: PyTree) -> None:
        """Evaluate once and refuse what would make every later number meaningless.

        **Raises:** as `AbstractObjective.check`; TypeError for functions that JAX cannot trace;
        ValueError for a Hessian of another shape, one that is not symmetric, and a gradient or a
        Hessian that disagrees with the derivatives of `function` in more than half of the digits.
        """
        try:
            super().check(params)
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                "objective: JAX cannot trace the function. Write it with jax.numpy, not numpy."
            ) from error
        if self.given_gradient is None and self.given_hessian is None:
            return
        # In reverse mode twice: a function with a custom gradient may have no forward derivative.
        direction, gradient = tree_scattered(params), jax.grad(self.function)
        slope = gradient(params)
        curved = jax.grad(lambda p: tree_dot(gradient(p), direction))(params)
        size, eps = ravel_pytree(params)[0].size, float(jnp.finfo(tree_dtype(params)).eps)
        if self.given_gradient is not None:
            # Near a critical point both are rounding.
            rounding = 1e3 * eps * float(tree_norm(curved)) * size**0.5
            rounding *= max(1.0, float(tree_norm(params)))
            _agree("gradient", self.given_gradient(params), slope, rounding)
        if self.given_hessian is not None:
            matrix = self.given_hessian(params)
            if jnp.shape(matrix) != (size, size):
                raise ValueError(
                    f"hessian: expected shape {(size, size)} for {size} parameters, got"
                    f" {jnp.shape(matrix)}."
                )
            skew, whole = (float(jnp.linalg.norm(m)) for m in (matrix - matrix.T, matrix))
            if not skew <= eps**0.5 * whole:
                raise ValueError(
                    f"hessian: not symmetric: it differs from its transpose by {skew:.3g}, and has"
                    f" norm {whole:.3g}."
                )
            _agree("hessian: its product with a vector", self.hvp(params, direction), curved, 0.0)


def _agree(field: str, given: PyTree, found: PyTree, rounding: float) -> None:
    """Refuse what is given where it is not what was found by differentiating."""
    apart, size = float(tree_norm(tree_sub(given, found))), float(tree_norm(found))
    eps = float(jnp.finfo(tree_dtype(found)).eps)
    if not apart <= rounding + eps**0.5 * max(size, float(tree_norm(given))):
        raise ValueError(
            f"{field}: differs by {apart:.3g} from what automatic differentiation of `function`"
            f" gives, which has norm {size:.3g}."
        )
