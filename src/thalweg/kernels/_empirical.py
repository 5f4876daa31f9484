"""Tangent kernels of real networks: as operators, and as matrices within a memory budget."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._checks import check_positive_integer
from .._precision import jit
from .._trees import tree_dtype, tree_size
from ..networks import Convolutional
from ..objectives import Objective, check_objective
from ._blocks import blocks, empty, filled
from ._layer_factors import factor_size, is_layered, layer_factors

Outputs = Literal["all", "each", "mean"]
# Bytes that a matrix, and all that it takes to make it, may have unless more are allowed.
MATRIX_MEMORY = 2**32
# What is alive at once, in units of the factors of one block: those of rows and of columns, and
# what differentiation needs to make them.
_ALIVE = 3
# Bytes of a block of the kernel, and samples that it has at least.
_CACHED, _FEWEST = 2**22, 16


class EmpiricalKernel(eqx.Module):
    """The tangent kernel of a network at some parameters, `J(x) J(x')^T`, never formed.

    J(x) has a row for each output on sample x and a column for each parameter. `columns` are the
    training data of an objective, `rows` those or other samples.
    """

    rows: Objective
    columns: Objective
    params: PyTree[Array]
    square: bool = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of predictions on the rows."""
        return jax.eval_shape(self.rows.predictions, self.params).shape

    def __matmul__(self, values: Float[Array, "columns ..."]) -> Float[Array, "rows ..."]:
        """The kernel times values on all columns: two passes over the data, and no matrix.

        **Raises:** ValueError for values that have not the shape of predictions.
        """
        expected = jax.eval_shape(lambda p: self.columns.predictions(p), self.params).shape
        if np.shape(values) != expected:
            raise ValueError(
                f"values: shape {np.shape(values)}; the kernel acts on predictions, {expected}."
            )
        return _product(self, values)

    @property
    def operator(self) -> lx.AbstractLinearOperator:
        """The same for `lineax`, which solves systems with it.

        **Raises:** ValueError for a kernel between different samples, which is not square.
        """
        if not self.square:
            raise ValueError("kernel: between different samples it is no operator on one space.")
        shape = jax.ShapeDtypeStruct(self.shape, tree_dtype(self.params))
        return lx.FunctionLinearOperator(
            lambda v: self @ v, shape, tags=lx.positive_semidefinite_tag
        )

    def matrix(self, outputs: Outputs = "all", *, memory: int = MATRIX_MEMORY) -> Array:
        """The kernel as an array, in blocks; exactly symmetric where rows and columns agree.

        **Arguments:**

        - `outputs`: "all" pairs of outputs, shape `(rows, outputs, columns, outputs)`; "each"
            output with itself, shape `(outputs, rows, columns)`; or the "mean" over these, shape
            `(rows, columns)`, which is what a network of infinite width has for each.
        - `memory`: bytes for the result and all that it takes to make it.

        **Raises:** ValueError for a budget too small.

        ??? cite "Reference"

            Novak, Sohl-Dickstein and Schoenholz, "Fast finite width neural tangent kernel",
            International Conference on Machine Learning (2022).
        """
        shape, size = self._plan(outputs, memory)
        n, m = self.rows.samples, self.columns.samples
        result = empty(shape, tree_dtype(self.params))
        # Where blocks lie in the result.
        place = {
            "all": lambda i, j: np.s_[i, :, j, :],
            "each": lambda i, j: np.s_[:, i, j],
            "mean": lambda i, j: np.s_[i, j],
        }[outputs]
        turned = {"all": (2, 3, 0, 1), "each": (0, 2, 1), "mean": (1, 0)}[outputs]
        square = self.square
        for i in blocks(n, size):
            first = factors(self.params, self.rows, self.rows.inputs_at(i))
            for j in blocks(m, size):
                if square and j.start < i.start:
                    continue
                same = square and i == j
                second = (
                    first if same else factors(self.params, self.columns, self.columns.inputs_at(j))
                )
                block = np.asarray(contracted(first, second, outputs))
                if same:
                    block = (block + np.transpose(block, turned)) / 2
                result[place(i, j)] = block
                if square and not same:
                    result[place(j, i)] = np.transpose(block, turned)
        return filled(result)

    def price(self, outputs: Outputs = "all", *, memory: int = MATRIX_MEMORY) -> int:
        """How many gradients of the objective `matrix` is worth.

        The Jacobian of one sample costs as much as its gradient, once for each output. In blocks,
        Jacobians of columns are made again for each block of rows.

        **Raises:** ValueError for a budget too small.
        """
        _, size = self._plan(outputs, memory)
        n, m = self.rows.samples, self.columns.samples
        made = n + sum(m - (i.stop if self.square else 0) for i in blocks(n, size))
        return math.ceil(math.prod(self.shape[1:]) * made / m)

    def _plan(self, outputs: Outputs, memory: int) -> tuple[tuple[int, ...], int]:
        """The shape of the matrix, and the samples in a block."""
        if outputs not in ("all", "each", "mean"):
            raise ValueError(f"outputs: expected all, each or mean, got {outputs!r}.")
        check_positive_integer(memory, "memory")
        count = math.prod(self.shape[1:])
        n, m = self.rows.samples, self.columns.samples
        shape = {"all": (n, count, m, count), "each": (count, n, m), "mean": (n, m)}[outputs]
        held = math.prod(shape) * tree_dtype(self.params).itemsize
        return shape, self._block_size(memory, held, count, outputs)

    def _block_size(self, memory, held, count, outputs):
        """Samples in a block: three arrays of factors, and a few of the block of the kernel."""
        itemsize = tree_dtype(self.params).itemsize
        if is_layered(self.columns, self.params):
            numbers = factor_size(self.params, self.columns.inputs)
        else:
            numbers = count * tree_size(self.params)
        entries = count**2 if outputs == "all" else count
        free, making = memory - held, self._room_to_make_factors()

        def needed(size):
            kept = itemsize * (_ALIVE * size * numbers + 4 * size**2 * entries)
            return kept + making * size

        if free < needed(1):
            advice = "" if outputs == "mean" else "; `outputs='mean'` makes the matrix smaller"
            raise ValueError(
                f"memory: {memory:,} bytes, but it takes {held + needed(1):,} at least, {held:,} of"
                " them for the matrix, the rest for the work on one sample. The operator (`kernel"
                f" @ values`) needs neither{advice}."
            )
        size = 1
        most = max(self.rows.samples, self.columns.samples)
        if is_layered(self.columns, self.params):
            # Factors are quickly made again, and blocks that stay in the cache are faster.
            most = min(most, max(_FEWEST, math.isqrt(_CACHED // (itemsize * entries))))
        while size < most and needed(min(2 * size, most)) <= free:
            size = min(2 * size, most)
        return size

    def _room_to_make_factors(self) -> int:
        """Bytes for each sample, beside the factors themselves.

        What convolutions need to be differentiated is far more, and the compiler knows how much.
        """
        if not isinstance(self.params, Convolutional):
            return 0

        def make(params, inputs):
            return factors(params, self.columns, inputs)

        lowered = jax.jit(make).lower(self.params, self.columns.inputs[:2])
        found = lowered.compile().memory_analysis()
        if found is None:
            # Not every compiler tells.
            return 0
        return -(-found.temp_size_in_bytes // min(2, self.columns.samples))


def empirical(
    objective: Objective, params: PyTree[Array], *, inputs: Any | None = None
) -> EmpiricalKernel:
    """The tangent kernel of an objective's network at some parameters.

        kernel = tw.kernels.empirical(objective, params)
        kernel @ residuals           # as an operator
        kernel.matrix("mean")        # as an array
        lineax.linear_solve(kernel.operator, residuals, lineax.CG(1e-6, 1e-6))

    **Arguments:**

    - `inputs`: other samples than the objective's for the rows; the columns are always those.

    Products are made with as many samples at once as the objective's reduction says.

    **Raises:** what `Objective.check` raises; ValueError for an objective that needs the whole
    batch.

    ??? cite "Reference"

        Jacot, Gabriel and Hongler, "Neural tangent kernel: convergence and generalization in neural
        networks", Advances in Neural Information Processing Systems 31 (2018).
    """
    check_objective(objective, Objective, what="a tangent kernel")
    objective.check(params)
    objective.check_sample_by_sample()
    rows = objective
    if inputs is not None:
        given = jnp.asarray(inputs)
        rows = Objective(
            objective.predict,
            objective.loss,
            given,
            jnp.zeros(given.shape[:1]),
            reduction=objective.reduction,
        )
        expected = objective.inputs.shape[1:]
        if rows.inputs.shape[1:] != expected:
            raise ValueError(
                f"inputs: samples of shape {rows.inputs.shape[1:]}, but the objective's have"
                f" {expected}."
            )
    params = jax.tree.map(jnp.asarray, params)
    return EmpiricalKernel(rows, objective, params, square=inputs is None)


@jit
def _product(kernel, values):
    return kernel.rows.jvp(kernel.params, kernel.columns.vjp(kernel.params, values))


@jit
def factors(params, objective, inputs):
    """What the Jacobian of a block of samples is made of."""
    if is_layered(objective, params):
        return layer_factors(params, inputs)

    def of_sample(x):
        def outputs(p):
            return objective.prediction(p, x).reshape(-1)

        rows = jax.jacrev(outputs)(params)
        leaves = jax.tree.leaves(rows)
        return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)

    return [(jax.vmap(of_sample)(inputs), None)]


@jit
def contracted(first, second, outputs):
    how = {"all": "aiw,bjw->aibj", "each": "aiw,biw->iab", "mean": "aiw,biw->ab"}[outputs]
    total = 0.0
    exact = jax.lax.Precision.HIGHEST
    for (back, into), (other_back, other_into) in zip(first, second, strict=True):
        product = jnp.einsum(how, back, other_back, precision=exact)
        if into is not None:
            inner = jnp.matmul(into, other_into.T, precision=exact)
            inner = inner[:, None, :, None] if outputs == "all" else inner
            product = product * inner
        total = total + product
    return total / first[0][0].shape[1] if outputs == "mean" else total
