"""Lanczos for both ends of the spectrum of a symmetric operator, on flat vectors.

The Krylov space of one random vector approximates both ends of a spectrum at once, from products
with the matrix alone. Five additions make it fit for use along a trajectory:

- *Full reorthogonalisation, twice.* Without it a converged eigenvalue comes back as a ghost copy.
- *Stored images.* Beside the basis V the rows W = V H are kept. The residual of a Ritz pair is
  formed from its definition, y W - theta y V, instead of from a recurrence that rounding breaks,
  and the space may begin with several vectors, for the sake of multiple eigenvalues. It grows by
  the residual of the wanted pair that is worst off; from a single start vector all residuals are
  parallel, and this *is* the Lanczos recurrence.
- *A start between known and random.* Eigenvectors found nearby are added up, together with a
  tenth of a random vector, into the start vector. Every direction has a share in it, so that an
  eigenvector that none of them points to is still found.
- *Thick restart.* A full basis is cut back to its outermost Ritz vectors, so that memory stays at
  two arrays of `basis_size` rows. Residuals are what they were, and the iteration goes on as if
  nothing had happened (but for the directions given up).
- *Scaled products.* Images are kept in units of a power of two near the norm of the operator, so
  that no square under- or overflows: see `_products.py`.

Sources: Parlett, The Symmetric Eigenvalue Problem (1998), chapters 11-13; Wu and Simon,
Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22
(2000); Stathopoulos, Saad and Wu, Dynamic thick restarting of the Davidson and the implicitly
restarted Arnoldi methods, SIAM J. Sci. Comput. 19 (1998).
"""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._powers import scale_of, times_power
from ._products import Products, Resolution, Scaling
from ._wanted import LEAST_EXPANSIONS, Wanted

# The share of randomness in a warm start: much less, and what is new is found late; much more,
# and what is known is lost.
_RANDOM = 0.1

# Accelerators may round float32 factors to fewer digits unless told not to.
_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Ritz(eqx.Module):
    """What was found.

    `residual` is |H v - value v| with |v| = 1 in exact arithmetic, bounded from the computed one
    and the `rounding` of a product. `krylov` is the dimension of the Krylov space searched, of a
    start vector with this `random_share` (1 where several start vectors make it another space).
    """

    value: Float[Array, "wanted"]
    residual: Float[Array, "wanted"]
    vectors: Float[Array, "wanted parameters"]
    spread: Float[Array, ""]
    rounding: Float[Array, ""]
    converged: Bool[Array, "wanted"]
    products: Int[Array, ""]
    krylov: Int[Array, ""]
    random_share: Float[Array, ""]
    finite: Bool[Array, ""]


class _Search(eqx.Module):
    """The first `filled` rows of `basis` are orthonormal, the first `imaged` have their images.

    `projected[i, j]` is basis[i] . images[j], not symmetrised: what it lacks in symmetry tells
    how exact the products are. `direction` is where the space grows next, `excess` by how much
    some residual is still too long (not positive: none is). All of these are in units of
    `scaling`.
    """

    basis: Float[Array, "rows parameters"]
    images: Float[Array, "rows parameters"]
    projected: Float[Array, "rows rows"]
    direction: Float[Array, "parameters"]
    filled: Int[Array, ""]
    imaged: Int[Array, ""]
    products: Int[Array, ""]
    expansions: Int[Array, ""]
    excess: Float[Array, ""]
    scale: Float[Array, ""]
    rounding: Float[Array, ""]
    scaling: Scaling
    finite: Bool[Array, ""]


def lanczos(
    matvec: Callable[[Float[Array, "parameters"]], Float[Array, "parameters"]],
    start: Float[Array, "vectors parameters"],
    key: PRNGKeyArray,
    *,
    wanted: Wanted,
    rows: int,
    tolerance: Float[Array, ""] | float,
    max_products: Int[Array, ""] | int,
    resolution: Resolution,
) -> Ritz:
    """Outermost eigenpairs of the symmetric `matvec`; see the head of this module.

    `start` holds vectors to begin with, zero rows for none; their lengths do not matter. `rows` is
    the size of the basis: with `rows` equal to the dimension, the search goes on until the space
    is everything. `tolerance` is relative to the largest |Ritz value|. `resolution` is that of the
    numbers that products are computed in. Make sure that `wanted.count <= min(rows, max_products)`.
    """
    parameters = start.shape[1]
    everything = rows >= parameters
    product = Products(matvec, resolution)
    search = _begin(start, jr.fold_in(key, 0), wanted, rows)

    def finished(s: _Search) -> Bool[Array, ""]:
        queue_empty = s.imaged == s.filled
        if everything:
            done = s.imaged == parameters
        else:
            enough = (s.imaged >= wanted.count) & (s.expansions >= LEAST_EXPANSIONS)
            done = enough & (s.excess <= 0)
        return (queue_empty & done) | (s.products >= max_products) | ~s.finite

    def step(s: _Search) -> _Search:
        fresh = s.imaged == s.filled
        vector = jax.lax.cond(
            fresh,
            lambda: _expansion(s, jr.fold_in(key, 1 + s.products), resolution.eps),
            lambda: s.basis[s.imaged],
        )
        basis = s.basis.at[s.imaged].set(vector)
        image, scaling, change, tries = product(vector, s.scaling)
        images, projected = jax.lax.cond(
            change == 0,
            lambda: (s.images, s.projected),
            lambda: (times_power(s.images, change), times_power(s.projected, change)),
        )
        images = images.at[s.imaged].set(image)
        # Rows beyond `imaged` of `images` are zero, and those of `basis` have no image yet: both
        # leave entries of `projected` that are not looked at before they are complete.
        projected = projected.at[:, s.imaged].set(_matmul(basis, image))
        projected = projected.at[s.imaged].set(_matmul(images, vector))
        grown = _Search(
            basis=basis,
            images=images,
            projected=projected,
            direction=s.direction,
            filled=jnp.where(fresh, s.filled + 1, s.filled),
            imaged=s.imaged + 1,
            products=s.products + tries,
            expansions=s.expansions + fresh,
            excess=s.excess,
            scale=s.scale,
            rounding=s.rounding,
            scaling=scaling,
            finite=jnp.all(jnp.isfinite(image)),
        )
        return _judged(grown, wanted, tolerance, resolution)

    def cycle(s: _Search) -> _Search:
        s = jax.lax.cond(s.imaged == rows, lambda s: _restarted(s, wanted), lambda s: s, s)
        return jax.lax.while_loop(lambda s: ~finished(s) & (s.imaged < rows), step, s)

    # A basis of everything never restarts.
    if everything:
        search = jax.lax.while_loop(lambda s: ~finished(s), step, search)
    else:
        search = jax.lax.while_loop(lambda s: ~finished(s), cycle, search)
    chain = jnp.minimum(search.products, rows) if wanted.block == 1 else 1
    krylov = jnp.where(search.imaged == parameters, parameters, chain)
    share = jnp.where(jnp.any(start), _RANDOM / (1 + _RANDOM), 1.0)
    return _result(search, wanted, tolerance, krylov, share)


def _begin(start, key, wanted, rows) -> _Search:
    """A basis of start vectors, each some of those given and a random one; no images yet."""
    count, parameters = start.shape
    dtype = start.dtype
    block = wanted.block
    threshold = jnp.sqrt(jnp.finfo(dtype).eps)

    def unit(vectors):
        vectors = jax.vmap(lambda v: v / scale_of(v, dtype))(vectors)
        size = jnp.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / jnp.where(size > 0, size, 1)

    # The first of the largest and the first of the smallest go together, and so on: Lanczos
    # serves both ends at once.
    place = jnp.arange(count)
    turn = jnp.where(place < wanted.largest, place, place - wanted.largest)
    groups = jnp.arange(block)[:, None] == turn % block
    known = unit(_matmul(groups.astype(dtype), unit(start)))
    mixed = unit(known + _RANDOM * unit(jr.normal(key, (block, parameters), dtype)))

    def append(i, state):
        basis, filled = state
        vector, remainder = _orthonormalised(mixed[i], basis)
        accepted = (remainder > threshold) & (filled < rows)
        row = jnp.minimum(filled, rows - 1)
        basis = basis.at[row].set(jnp.where(accepted, vector, basis[row]))
        return basis, filled + accepted

    empty = (jnp.zeros((rows, parameters), dtype), jnp.asarray(0))
    basis, filled = jax.lax.fori_loop(0, block, append, empty)
    zero = jnp.zeros((), dtype)
    return _Search(
        basis=basis,
        images=jnp.zeros_like(basis),
        projected=jnp.zeros((rows, rows), dtype),
        direction=jnp.zeros(parameters, dtype),
        filled=filled,
        imaged=jnp.asarray(0),
        products=jnp.asarray(0),
        expansions=jnp.asarray(0),
        excess=jnp.asarray(jnp.inf, dtype),
        scale=zero,
        rounding=zero,
        scaling=Scaling.unknown(),
        finite=jnp.asarray(True),
    )


def _orthonormalised(vector, basis):
    """The unit vector along what `basis` lacks of `vector`, and the length of that part.

    Twice: what the first pass leaves can be short, and its rounding errors then are not small
    beside it.
    """

    def projected_out(v):
        v = v - _matmul(_matmul(basis, v), basis)
        size = jnp.linalg.norm(v)
        return v / jnp.where(size > 0, size, 1), size

    unit, first = projected_out(vector)
    unit, second = projected_out(unit)
    return unit, first * second


def _expansion(s: _Search, key, eps):
    """The next basis vector: along `direction`, or random when the space is invariant."""
    unit, size = _orthonormalised(s.direction, s.basis)
    noise = 16 * eps * s.scale

    def random():
        return _orthonormalised(jr.normal(key, unit.shape, unit.dtype), s.basis)[0]

    return jax.lax.cond(size <= noise, random, lambda: unit)


def _rayleigh_ritz(s: _Search):
    """Ritz values in increasing order and their coefficients, in columns; unused rows last."""
    rows = s.projected.shape[0]
    used = jnp.arange(rows) < s.imaged
    square = used[:, None] & used[None, :]
    symmetric = jnp.where(square, (s.projected + s.projected.T) / 2, 0)
    bound = jnp.max(jnp.sum(jnp.abs(symmetric), axis=1))
    # Placeholders above every eigenvalue (Gershgorin), yet not so far that they cost digits.
    above = jnp.where(bound > 0, 2 * bound, 1)
    placeholders = jnp.diag(jnp.where(used, 0, above))
    finite = jnp.all(jnp.isfinite(symmetric))
    matrix = jnp.where(finite, symmetric + placeholders, jnp.eye(rows, dtype=above.dtype))
    return jnp.linalg.eigh(matrix, symmetrize_input=False)


def _pairs(s: _Search, values, coefficients, positions):
    """Unit Ritz vectors, their values, and the vectors H v - value v, one pair a row."""
    chosen = coefficients[:, positions].T
    vectors = _matmul(chosen, s.basis)
    size = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    size = jnp.where(size > 0, size, 1)
    value = values[positions]
    residuals = (_matmul(chosen, s.images) - value[:, None] * vectors) / size
    return value, vectors / size, residuals


def _judged(s: _Search, wanted: Wanted, tolerance, resolution: Resolution) -> _Search:
    """How far the search has come, and the direction in which the worst pair improves.

    A wanted pair is good when its residual is within the tolerance. The pair next in line is good
    when its interval does not reach beyond the wanted value: until then it may be the true extreme
    one, as when an eigenvalue overtakes another along a trajectory.
    """
    values, coefficients = _rayleigh_ritz(s)
    used = jnp.arange(values.shape[0]) < s.imaged
    scale = jnp.max(jnp.where(used, jnp.abs(values), 0))
    rounding = _rounding(s, scale, resolution)
    # The rounding of a product is part of every residual, and nothing gets below it.
    goal = jnp.maximum(tolerance * scale - rounding, rounding)
    positions, rivals = wanted.positions(s.imaged), wanted.rivals(s.imaged)
    watched = jnp.concatenate([positions, wanted.spare_positions(s.imaged)])
    _, _, residuals = _pairs(s, values, coefficients, watched)
    gap = jnp.abs(values[watched] - values[jnp.concatenate([positions, rivals])])
    excess = jnp.linalg.norm(residuals, axis=1) - gap - goal
    return eqx.tree_at(
        lambda t: (t.excess, t.scale, t.rounding, t.direction),
        s,
        (jnp.max(excess), scale, rounding, residuals[jnp.argmax(excess)]),
    )


def _rounding(s: _Search, scale, resolution: Resolution):
    """The length of the rounding error of one product with a unit vector, estimated.

    Exact products make `projected` symmetric. Errors of length e in all directions alike leave an
    asymmetry of about e sqrt(2 / parameters) in each entry; so e is read off it. It is what a
    float32 network really loses, cancellation between samples and layers included. On top comes an
    allowance for errors that are themselves symmetric, as those of sums over samples are, and one
    for numbers that underflow.
    """
    parameters = s.basis.shape[1]
    used = jnp.arange(s.projected.shape[0]) < s.imaged
    square = used[:, None] & used[None, :]
    asymmetry = jnp.where(square, s.projected - s.projected.T, 0)
    pairs = jnp.maximum(s.imaged * (s.imaged - 1), 1)
    typical = jnp.sqrt(jnp.sum(asymmetry**2) / pairs)
    # Sums of half-precision numbers are made in float32.
    symmetric = 128 if resolution.eps < 1e-5 else 8
    flushed = s.scaling.in_units(resolution.flushed(parameters), scale.dtype)
    return symmetric * resolution.eps * scale + 2 * math.sqrt(parameters / 2) * typical + flushed


def _restarted(s: _Search, wanted: Wanted) -> _Search:
    """A full basis cut back to its outermost Ritz vectors."""
    rows = s.basis.shape[0]
    low, high = wanted.kept(rows)
    _, coefficients = _rayleigh_ritz(s)
    chosen = jnp.concatenate([coefficients[:, :low], coefficients[:, rows - high :]], axis=1).T
    basis = jnp.zeros_like(s.basis).at[: low + high].set(_matmul(chosen, s.basis))
    images = jnp.zeros_like(s.images).at[: low + high].set(_matmul(chosen, s.images))
    kept = jnp.asarray(low + high)
    return eqx.tree_at(
        lambda t: (t.basis, t.images, t.projected, t.filled, t.imaged),
        s,
        (basis, images, _matmul(basis, images.T), kept, kept),
    )


def _result(s: _Search, wanted: Wanted, tolerance, krylov, random_share) -> Ritz:
    values, coefficients = _rayleigh_ritz(s)
    value, vectors, residuals = _pairs(s, values, coefficients, wanted.positions(s.imaged))
    residual = jnp.linalg.norm(residuals, axis=1) + s.rounding
    # Nothing is known of an operator of zeros but that its numbers underflow.
    converged = (residual <= tolerance * s.scale) | (s.scale == 0)
    # Where an eigenvalue is out of range, the largest number is as far from it as that.
    largest = s.scaling.in_units(float(jnp.finfo(value.dtype).max), value.dtype)
    nearest = jnp.clip(value, -largest, largest)
    residual = s.scaling.absolute(residual + jnp.abs(value - nearest))
    return Ritz(
        value=s.scaling.absolute(nearest),
        residual=residual,
        vectors=vectors,
        spread=s.scaling.absolute(values[jnp.maximum(s.imaged - 1, 0)] - values[0]),
        rounding=s.scaling.absolute(s.rounding),
        converged=converged & jnp.isfinite(residual),
        products=s.products,
        krylov=krylov,
        random_share=random_share,
        finite=s.finite,
    )
