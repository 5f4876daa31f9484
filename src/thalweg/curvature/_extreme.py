"""The extreme eigenvalues of the Hessian at one point, and along a trajectory."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._checks import check_positive
from .._precision import jit
from .._trees import check_params, tree_size
from ..objectives import AbstractObjective, check_objective
from ._eigenvalues import Eigenvalues
from ._lanczos import lanczos
from ._products import Resolution
from ._wanted import Wanted, rows_needed

_MAX_PRODUCTS = 1000


def extreme_eigenvalues(
    objective: AbstractObjective,
    params: PyTree,
    largest: int = 1,
    smallest: int = 1,
    *,
    tolerance: float = 1e-3,
    start: Eigenvalues | PyTree | None = None,
    max_products: int = _MAX_PRODUCTS,
    basis_size: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Eigenvalues:
    """The `largest` largest and the `smallest` smallest eigenvalues of the Hessian at `params`.

    Lanczos with full reorthogonalisation and thick restarts. Every value comes with its residual:
    an interval that holds an eigenvalue, whether or not the tolerance was reached. The search ends
    when neither the wanted values nor the one next in line, whose interval might still reach
    beyond them, need more work. With no more parameters than `basis_size` the whole space is
    searched, and the values are the extreme ones without doubt.

    **Arguments:**

    - `objective`: any objective; its Hessian-vector products are asked for.
    - `tolerance`: residuals to reach, relative to the largest absolute eigenvalue.
    - `start`: eigenvalues found nearby, or vectors with the structure of `params` and a leading
        axis. A random vector is mixed in all the same, so that a direction that none of them
        points to is found. Along a trajectory use `ExtremeEigenvalues`, which draws a fresh one
        each time.
    - `max_products`: Hessian-vector products to spend at most, each worth 2 gradients. When they
        run out, residuals say how far it came. An operator whose products under- or overflow may
        take up to four more.
    - `basis_size`: rows of the basis; memory is two arrays of this many vectors like `params`
        (four during a restart). 32 by default, more for many eigenvalues.
    - `key`: for the random vectors, `jax.random.key(0)` by default. Same key and input: same bits.

    More than one eigenvalue at an end: as many random start vectors are used, so that a multiple
    eigenvalue is found as often as it is there. At a kink of the network (ReLU) the Hessian is the
    one that automatic differentiation gives.

    Eigenvalues of any scale are found: vectors are multiplied by powers of two where products
    would under- or overflow, which a product has to be linear for. Residuals allow for what
    still underflows, and `Eigenvalues.limit` says where that is what keeps them from converging.

    **Returns:** `Eigenvalues`.

    **Raises:** ValueError for counts, tolerance, `max_products` or `basis_size` that make no
    sense, a start that does not fit, parameters that are not finite, or Hessian products that are
    not finite; TypeError for parameters that are not floating-point arrays, and for something
    else than an objective.
    """
    check_objective(objective)
    check_params(params)
    wanted = Wanted(_count(largest, "largest"), _count(smallest, "smallest"))
    _check_fit(wanted, params)
    flat = _flat_start(start, params)
    return _search(objective, params, flat, _key(key), wanted, tolerance, max_products, basis_size)


class ExtremeEigenvalues(eqx.Module):
    """The extreme eigenvalues along a trajectory, each search starting from the one before.

    ```python
    sharpness = ExtremeEigenvalues(largest=1, smallest=1)
    carry = sharpness.initial(objective, params)
    for params in points:
        eigenvalues, carry = sharpness(objective, params, carry)
    ```

    What is carried is a PyTree of arrays of fixed shapes: the eigenvectors and the number of
    searches, from which each search's random vectors follow. Going on from a stored carry gives
    the same bits as never having stopped.

    **Arguments** and **errors**: see `extreme_eigenvalues`.
    """

    largest: int = eqx.field(static=True, default=1)
    smallest: int = eqx.field(static=True, default=1)
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_products: int = eqx.field(static=True, default=_MAX_PRODUCTS)
    basis_size: int | None = eqx.field(static=True, default=None)
    key: PRNGKeyArray | None = None

    def __check_init__(self):
        _count(self.largest, "largest")
        _count(self.smallest, "smallest")
        check_positive(self.tolerance, "tolerance")

    def initial(self, objective: AbstractObjective, params: PyTree) -> "Carry":
        """What to carry into the first search: nothing found yet."""
        del objective
        check_params(params)
        wanted = self._wanted(params)
        vectors = jnp.zeros((wanted.count, tree_size(params)), _dtype(params))
        return Carry(vectors=vectors, searches=jnp.asarray(0))

    def __call__(
        self, objective: AbstractObjective, params: PyTree, carry: "Carry"
    ) -> tuple[Eigenvalues, "Carry"]:
        """The eigenvalues at `params`, and what to carry into the next search."""
        check_params(params)
        found = _search(
            objective,
            params,
            carry.vectors,
            jr.fold_in(_key(self.key), carry.searches),
            self._wanted(params),
            self.tolerance,
            self.max_products,
            self.basis_size,
        )
        return found, Carry(vectors=_flat_start(found, params), searches=carry.searches + 1)

    def _wanted(self, params: PyTree) -> Wanted:
        wanted = Wanted(self.largest, self.smallest)
        _check_fit(wanted, params)
        return wanted


class Carry(eqx.Module):
    """What one search hands to the next: vectors (zero before the first), and a count."""

    vectors: Float[Array, "vectors parameters"]
    searches: Int[Array, ""]


def _search(
    objective, params, start, key, wanted, tolerance, max_products, basis_size
) -> Eigenvalues:
    check_positive(tolerance, "tolerance")
    size = tree_size(params)
    rows = rows_needed(wanted, size)
    if basis_size is not None:
        least = rows_needed(wanted, size, least=True)
        if _count(basis_size, "basis_size") < least:
            raise ValueError(
                f"basis_size: {basis_size} rows are too few for so many"
                f" eigenvalues; at least {least} are needed."
            )
        rows = min(basis_size, size)
    if _count(max_products, "max_products") < wanted.count:
        raise ValueError(
            f"max_products: {max_products} cannot give {wanted.count} eigenvalues; allow at least"
            f" {wanted.count}."
        )
    found, finite = _run(
        objective,
        params,
        start,
        key,
        wanted,
        rows,
        jnp.asarray(tolerance),
        jnp.asarray(max_products),
    )
    if not isinstance(finite, Tracer) and not bool(finite):
        raise ValueError(
            "objective: a Hessian-vector product is not finite at these parameters, so there are no"
            " eigenvalues."
        )
    return found


@jit
def _run(objective, params, start, key, wanted, rows, tolerance, max_products):
    point, unravel = ravel_pytree(params)

    def matvec(vector):
        product = objective.hvp(params, unravel(vector.astype(point.dtype)))
        return ravel_pytree(product)[0].astype(vector.dtype)

    resolution = Resolution.of(params)
    ritz = lanczos(
        matvec,
        start,
        key,
        wanted=wanted,
        rows=rows,
        tolerance=tolerance.astype(start.dtype),
        max_products=max_products,
        resolution=resolution,
    )
    found = Eigenvalues(
        value=ritz.value,
        residual=ritz.residual,
        vectors=jax.vmap(lambda v: unravel(v.astype(point.dtype)))(ritz.vectors),
        converged=ritz.converged,
        products=ritz.products,
        spread=ritz.spread,
        rounding=ritz.rounding,
        underflow=jnp.asarray(resolution.flushed(point.size), start.dtype),
        krylov=ritz.krylov,
        random_share=ritz.random_share,
        parameters=point.size,
        counts=(wanted.largest, wanted.smallest),
    )
    return found, ritz.finite


def _dtype(params: PyTree) -> jnp.dtype:
    """What Lanczos computes in: half precision is too coarse for orthogonality."""
    return jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)


def _flat_start(start: Any, params: PyTree) -> Float[Array, "vectors parameters"]:
    if start is None:
        return jnp.zeros((0, tree_size(params)), _dtype(params))
    vectors = start.vectors if isinstance(start, Eigenvalues) else start
    check_params(vectors, "start")
    if jax.tree.structure(vectors) != jax.tree.structure(params):
        raise ValueError(
            f"start: structure {jax.tree.structure(vectors)} is not that of the parameters,"
            f" {jax.tree.structure(params)}."
        )
    rows = jax.tree.leaves(vectors)[0].shape[:1]
    for (path, vector), leaf in zip(
        jax.tree_util.tree_leaves_with_path(vectors), jax.tree.leaves(params), strict=True
    ):
        if vector.ndim == 0 or vector.shape != rows + leaf.shape:
            raise ValueError(
                f"start{jax.tree_util.keystr(path)}: shape {vector.shape}; expected a leading axis"
                f" of vectors and then {leaf.shape}."
            )
    return jax.vmap(lambda v: ravel_pytree(v)[0])(vectors).astype(_dtype(params))


def _count(value: Any, field: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{field}: expected a whole number, got {value!r}.")
    if value.__index__() < 0:
        raise ValueError(f"{field}: must not be negative, got {value}.")
    return value.__index__()


def _check_fit(wanted: Wanted, params: PyTree) -> None:
    if wanted.count == 0:
        raise ValueError("largest, smallest: both are 0, so nothing is asked for.")
    if wanted.count > tree_size(params):
        raise ValueError(
            f"largest, smallest: {wanted.largest} + {wanted.smallest} eigenvalues are asked for,"
            f" but there are only {tree_size(params)} parameters."
        )


def _key(key: PRNGKeyArray | None) -> PRNGKeyArray:
    return jr.key(0) if key is None else key
