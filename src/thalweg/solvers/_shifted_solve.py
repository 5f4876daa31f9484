"""Linear systems with a shifted symmetric Jacobian, by conjugate gradients.

The equation is `(shift - J) x = r` with the Jacobian J of a vector field. For a gradient flow -J is
the Hessian; where it is positive, or negative by less than the shift, the matrix is positive
definite, and every iterate's length is below the solution's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_axpy, tree_dot, tree_dtype, tree_norm, tree_scale, tree_size, tree_sub
from ._deflation import Deflation, Rows

_MOST_ITERATIONS = 1000
# After a solve of so many steps a deflation is renewed, with the first directions.
_LONG, _GATHERED = 4, 16
# Without a product, errors in steep directions are multiplied by a half of this at most.
_MILD = 1.0
# Gradient-equivalents of a Jacobian-vector product.
_EXACT_PRICE = 2


class Solved(NamedTuple):
    """A solution, what is left of the equation, and how it was found.

    `error` estimates the Euclidean distance to the exact solution; `radius` is the largest
    curvature met along the directions of search, 0 if there was none; `definite` is false where the
    matrix was found not to be positive; `evaluations` is the price. Without a product, only a bound
    of what is left is known: `residual` is 0, and `missed` its largest norm.
    """

    x: PyTree[Array]
    residual: PyTree[Array]
    missed: Float[Array, ""]
    deflation: Deflation | None
    error: Float[Array, ""]
    radius: Float[Array, ""]
    definite: Bool[Array, ""]
    evaluations: Int[Array, ""]


def shifted_solve(
    field: Callable[[PyTree[Array]], PyTree[Array]],
    y: PyTree[Array],
    f: PyTree[Array],
    shift: Float[Array, ""],
    r: PyTree[Array],
    *,
    enough: Float[Array, ""],
    hopeless: Float[Array, ""],
    radius: Float[Array, ""],
    size: Float[Array, ""],
    exact: Bool[Array, ""],
    deflation: Deflation | None = None,
) -> Solved:
    """Solve `(shift - J(y)) x = r` until the estimated error of x is at most `enough`.

    `f` is `field(y)`. Where the shift is so far above the `radius`, what is known of J's spectral
    radius, that the mean of the two inverses is accurate enough, no product is needed. The solve is
    given up where x becomes longer than `hopeless`. `size` is the scale of the parameters. Products
    with J are difference quotients of the field, at the price of one evaluation each; where
    `exact`, and where the shift is so small against the radius that quotients would drown it, they
    are Jacobian-vector products, at the price of two. A field without forward derivatives (a
    `jax.custom_vjp` in a network) has quotients only. A `deflation` makes the solve shorter, and is
    renewed by it.
    """
    dtype = tree_dtype(y)
    eps = jnp.finfo(dtype).eps
    length = jnp.sqrt(eps) * size
    # What a difference quotient errs by, relatively.
    exact = exact | (shift < jnp.sqrt(eps) * radius)
    differentiable = _has_forward_derivative(field, y)
    exact = exact & differentiable

    def product(d, norm):
        def by_quotient():
            step = length / norm
            return tree_scale(1 / step, tree_sub(field(tree_axpy(step, d, y)), f))

        def by_derivative():
            return jax.jvp(field, (y,), (d,))[1]

        if not differentiable:
            return by_quotient()
        return jax.lax.cond(exact, by_derivative, by_quotient)

    price = jnp.where(exact, _EXACT_PRICE, 1)

    def conditioned(r):
        return r if deflation is None else deflation.applied(r, shift)

    unit = 1 if deflation is None else deflation.unit
    # Squares of what is very small or large would leave the numbers' range.
    height = tree_norm(r)
    height = jnp.where(height > 0, height, 1)
    r = tree_scale(1 / height, r)
    enough, hopeless = enough / height, hopeless / height
    half = radius / 2
    near = half / (shift * (shift + half))
    at_once = (near <= enough) & (radius > 0) & (radius <= _MILD * shift)
    x = tree_scale(jnp.where(at_once, 1 / (shift + half), 0), r)
    z = jax.lax.cond(at_once, lambda: r, lambda: conditioned(r))
    tiny = jnp.finfo(dtype).tiny

    def unfinished(carry):
        x, _, _, energy, bound, _, definite, count, _ = carry
        left = jnp.sqrt(bound * energy / shift)
        return (
            ~at_once
            & (left > enough)
            & definite
            & (tree_norm(x) <= hopeless)
            & (count < _MOST_ITERATIONS)
            & jnp.isfinite(energy)
        )

    def iterate(carry):
        x, r, d, energy, bound, known, definite, count, gathered = carry
        norm = tree_norm(d)
        slope = product(d, norm)
        if gathered is not None:
            image = tree_scale(-1 / (norm * unit), slope)
            gathered = gathered.put(count, tree_scale(1 / norm, d), image)
        image = jax.tree.map(lambda s, j: shift * s - j, d, slope)
        curvature = tree_dot(d, image)
        definite = definite & (curvature > 0)
        alpha = jnp.where(definite, energy / jnp.where(definite, curvature, 1), 0)
        known = jnp.maximum(known, curvature / norm**2 - shift)
        x = tree_axpy(alpha, d, x)
        r = tree_axpy(-alpha, image, r)
        z = conditioned(r)
        new = tree_dot(r, z)
        gain = new / jnp.where(energy > 0, energy, 1)
        d = tree_axpy(gain, d, z)
        surplus = jnp.maximum(bound - alpha, 0)
        bound = surplus / jnp.maximum(shift * surplus + gain, tiny)
        return x, r, d, new, bound, known, definite, count + 1, gathered

    # The square of the error in the energy norm is at most `bound` times that of the residual.
    begin = (
        x,
        r,
        z,
        tree_dot(r, z),
        1 / shift,
        radius * 0,
        jnp.asarray(True),
        jnp.asarray(0),
        None if deflation is None else Rows.free(_GATHERED, tree_size(y)),
    )
    x, r, _, energy, bound, known, definite, count, gathered = jax.lax.while_loop(
        unfinished, iterate, begin
    )
    if deflation is not None and gathered is not None:
        known = jnp.maximum(known, deflation.largest.astype(known.dtype))
        usable = (count >= _LONG) & definite & jnp.isfinite(energy)
        # A loop of one turn at most: unlike a case distinction, it copies nothing.
        deflation, _ = jax.lax.while_loop(
            lambda known: known[1],
            lambda known: (known[0].renewed(gathered), jnp.asarray(False)),
            (deflation, usable),
        )
    error = height * jnp.where(at_once, near, jnp.sqrt(bound * energy / shift))
    missed = jnp.where(at_once, shift * error, 0)
    x, r = tree_scale(height, x), tree_scale(jnp.where(at_once, 0, height), r)
    return Solved(x, r, missed, deflation, error, known, definite, price * count)


def _has_forward_derivative(field, y) -> bool:
    """Whether the field has Jacobian-vector products; nothing is computed.

    JAX finds out about a `jax.custom_vjp` only when it compiles the product.
    """
    try:
        traced = jax.make_jaxpr(lambda y: jax.jvp(field, (y,), (y,)))(y)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return not _goes_backward_only(traced.jaxpr)


def _goes_backward_only(jaxpr) -> bool:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_lin":
            return True
        for part in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns") and _goes_backward_only(inner):
                return True
    return False
