"""The mean loss of a prediction function over full-batch data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._checks import check_instance, checked_data
from .._independence import check_independent_on_trial
from .._kinks import kink_pattern, mean_over_segment
from .._precision import in_full_precision
from .._trees import check_digits, check_params, tree_norm
from ..losses import Loss
from ._abstract import AbstractObjective, Kinks
from ._check_supervised import check_supervised
from ._reductions import AbstractReduction, AllAtOnce
from ._supervised import AbstractSupervised


class Objective(AbstractSupervised):
    """The mean loss over all samples, as a function of the parameters.

    $f(\\theta) = \\frac1N \\sum_i \\ell(\\mathrm{predict}(\\theta, x_i), y_i)$

    **Arguments:**

    - `predict`: a pure function `(params, inputs) -> predictions`; `params` is any PyTree of
        floating-point arrays, `inputs` and `predictions` have a leading axis of samples, and a
        sample's prediction must not depend on the other samples (but see `whole_batch`).
    - `loss`: `(predictions, targets) -> (samples,)`, for instance
        `thalweg.losses.squared_error`. The same holds for it.
    - `inputs`: shape `(samples, ...)`.
    - `targets`: shape `(samples, ...)`.
    - `reduction`: how sums over samples are made: all at once by default, in
        `tw.objectives.MicroBatches(size)`, or `tw.objectives.Sharded(mesh)` over devices.
    - `whole_batch`: whether predictions and losses may depend on all samples, as those of batch
        normalisation in training mode do. They are then functions of the parameters like any
        other, but not sample by sample: without micro-batches, `kink_pattern` and tangent kernels.
    - `params`: parameters at which to check the whole at construction: see `check`. Without them
        only the data are checked here, and the rest where parameters first appear.

    Every method is a pure function of its arguments and can be traced by JAX. Whoever works on part
    of the samples first tries `predict` on a few random ones, with random parameters. Matrices are
    multiplied in the precision of their entries, also on GPUs, which else multiply float32 in a
    shorter format; set JAX's `jax_default_matmul_precision` to have it otherwise.

    **Raises:** ValueError for data that are empty, not finite, or do not fit, and for micro-batches
    of what needs the whole batch; TypeError for a `predict` or `loss` that cannot be called.
    """

    predict: Callable[[PyTree, Array], Array] = eqx.field(static=True)
    loss: Callable[[Array, Array], Array]
    inputs: Float[Array, "samples ..."]
    targets: Array
    reduction: AbstractReduction
    whole_batch: bool = eqx.field(static=True)

    def __init__(
        self,
        predict: Callable[[PyTree, Array], Array],
        loss: Callable[[Array, Array], Array],
        inputs: Any,
        targets: Any,
        *,
        reduction: AbstractReduction | None = None,
        whole_batch: bool = False,
        params: PyTree | None = None,
    ):
        for field, function in (("predict", predict), ("loss", loss)):
            if isinstance(function, type):
                name = function.__name__
                raise TypeError(
                    f"{field}: expected a function, got the class {name}; pass an instance of it."
                )
            if not callable(function):
                raise TypeError(f"{field}: expected a function, got {type(function).__name__}.")
        reduction = AllAtOnce() if reduction is None else reduction
        check_instance(reduction, AbstractReduction, "reduction", "a reduction")
        self.predict = predict
        self.loss = loss
        self.reduction = reduction
        inputs, targets = checked_data(inputs, "inputs"), checked_data(targets, "targets")
        if inputs.shape[0] != targets.shape[0]:
            raise ValueError(f"targets: {targets.shape[0]} samples, but inputs has {len(inputs)}.")
        self.inputs = reduction.place(inputs, "inputs")
        self.targets = reduction.place(targets, "targets")
        if not isinstance(whole_batch, bool):
            raise TypeError(f"whole_batch: expected True or False, got {whole_batch!r}.")
        together = reduction.at_once(len(inputs))
        if whole_batch and together < len(inputs):
            raise ValueError(
                f"reduction: {together} samples at once, but predictions may depend on all of them"
                " (whole_batch=True). Leave it out."
            )
        self.whole_batch = whole_batch
        if params is not None:
            self.check(params)

    @property
    def samples(self) -> int:
        """Number of samples, N."""
        return self.inputs.shape[0]

    def predictions(self, params: PyTree) -> Float[Array, "samples ..."]:
        """Predictions on every sample."""
        return self._per_sample(lambda inputs: self._predict(params, inputs), self.inputs)

    def prediction(self, params: PyTree, sample: Float[Array, "..."]) -> Float[Array, "..."]:
        """The prediction on one sample, of the objective's or another.

        **Raises:** ValueError for predictions that depend on other samples.
        """
        self.check_sample_by_sample()
        return self._predict(params, sample[None])[0]

    def value(self, params: PyTree) -> Float[Array, ""]:
        """f(theta)."""
        return self.mean_of_sums(lambda x, y: jnp.sum(self._losses(params, x, y)))

    def gradient(self, params: PyTree) -> PyTree:
        """The gradient of f, with the structure of `params`. Costs 1 gradient."""
        return self.value_and_gradient(params)[1]

    def value_and_gradient(self, params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """f(theta) and its gradient, for the price of the gradient."""
        return self.mean_of_sums(
            lambda x, y: jax.value_and_grad(lambda p: jnp.sum(self._losses(p, x, y)))(params)
        )

    def mean_gradient(self, params: PyTree, displacement: PyTree) -> PyTree:
        """The gradient, averaged over the segment `params +- displacement / 2`, as far as it jumps.

        At a kink of the network (ReLU, max-pooling) on the segment both one-sided derivatives
        enter, weighted by the parts of the segment that they hold on; everything else is taken at
        `params`. Without a kink on the segment it is `gradient(params)`. Costs 4/3 of a gradient:
        one more pass forward.
        """

        def batch(x, y):
            def total(p):
                return jnp.sum(mean_over_segment(lambda q: self._losses(q, x, y), p, displacement))

            return jax.grad(total)(params)

        return self.mean_of_sums(batch)

    def kinks(self, params: PyTree) -> Kinks:
        """Whether the network or the loss has kinks: see `AbstractObjective.kinks`.

        They are read off the computation for one sample.
        """
        few = slice(None) if self.whole_batch else slice(1)
        inputs, targets = self.inputs[few], self.targets[few]

        def losses(p):
            return self.checked_losses(self.predict(p, inputs), targets)

        return self._kinks_of(losses, params)

    def kink_pattern(self, params: PyTree) -> list[Bool[Array, "samples ..."]]:
        """For every kink of the network and every sample, the side that `params` are on.

        One array for each operation with a kink: whether a ReLU is active, which of its arguments
        is a maximum. Empty for a smooth network, and for one whose kinks cannot be read.

        **Raises:** ValueError for predictions that depend on other samples.
        """

        def sides(x):
            patterns = kink_pattern(lambda p: self.prediction(p, x), params)
            return [jnp.ravel(pattern) for pattern in patterns]

        # Only sample by sample is it sure which axis of a hidden layer is that of samples.
        return self._per_sample(jax.vmap(sides), self.inputs)

    def hvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """Hessian-vector product. Costs 2 gradients (forward over reverse)."""

        def batch(x, y):
            gradient = jax.grad(lambda p: jnp.sum(self._losses(p, x, y)))
            return jax.jvp(gradient, (params,), (vector,))[1]

        return self.mean_of_sums(batch)

    def gnvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """Gauss-Newton-vector product: the Hessian without the curvature of the network."""

        def batch(x, y):
            predictions, push = jax.linearize(lambda p: self._predict(p, x), params)
            loss_gradient = jax.grad(lambda z: jnp.sum(self.loss(z, y)))
            curved = jax.jvp(loss_gradient, (predictions,), (push(vector),))[1]
            return jax.linear_transpose(push, params)(curved)[0]

        return self.mean_of_sums(batch)

    def jvp(self, params: PyTree, vector: PyTree) -> Float[Array, "samples ..."]:
        """Jacobian-vector product: the change of all predictions along `vector`."""
        return self._per_sample(
            lambda x: jax.jvp(lambda p: self._predict(p, x), (params,), (vector,))[1], self.inputs
        )

    def vjp(self, params: PyTree, cotangent: Float[Array, "samples ..."]) -> PyTree:
        """Transposed-Jacobian-vector product: from the space of predictions to parameters.

        A sum over samples, not a mean: it is the exact transpose of `jvp`.
        """

        def batch(x, c):
            return jax.vjp(lambda p: self._predict(p, x), params)[1](c)[0]

        if cotangent.shape[:1] != (self.samples,):
            raise ValueError(
                f"cotangent: shape {cotangent.shape} does not fit {self.samples} samples."
            )
        return self._sum(batch, cotangent)

    def gradient_scale(self, params: PyTree) -> Float[Array, ""]:
        """About the size of the terms that a gradient is the sum of, sample by sample.

        The loss's gradient in a prediction is itself a difference, of numbers as large as the
        prediction is times what the loss curves. Costs about 2 gradients.
        """

        def of_sample(pair):
            x, y = (a[None] for a in pair)
            outputs, back = jax.vjp(lambda p: self.predict(p, x), params)
            slope = jax.grad(lambda z: jnp.sum(self.loss(z, y)))
            steep, curved = jax.jvp(slope, (outputs,), (outputs,))
            return tree_norm(back(jnp.abs(steep) + jnp.abs(curved))[0])

        return self.mean_of_sums(lambda x, y: jnp.sum(jax.lax.map(of_sample, (x, y))))

    def same(self, other: AbstractObjective) -> bool:
        """Whether the other one has the same prediction function, loss and data."""
        if self is other:
            return True
        if not isinstance(other, Objective) or self.predict != other.predict:
            return False
        parts = ((o.loss, o.inputs, o.targets) for o in (self, other))
        return bool(eqx.tree_equal(*parts))

    def mean_of_sums(self, batch: Callable[[Array, Array], PyTree]) -> PyTree:
        """The mean over samples of anything that `batch(inputs, targets)` sums up for some of them.

        Every mean above is one of these, made by the reduction.
        """
        return jax.tree.map(lambda total: total / self.samples, self._sum(batch, self.targets))

    @in_full_precision
    def check(self, params: PyTree) -> None:
        """Evaluate once and refuse what would make every later number meaningless.

        **Raises:** TypeError for parameters or predictions that are not real floating-point arrays
        with at least the digits of float32; ValueError for parameters or predictions that are not
        finite, predictions that change between two calls, predictions or losses that change with
        the other samples in the batch (unless `whole_batch`), and shapes that do not agree.
        """
        check_params(params)
        check_digits(params)
        check_supervised(self, params)

    def inputs_at(self, index: Any) -> Float[Array, "some ..."]:
        """The inputs of some samples, whole on every device."""
        return self.reduction.gathered(self.inputs[index])

    def gathered(self) -> "Objective":
        """The same objective with all of its data on every device."""
        inputs, targets = map(self.reduction.gathered, (self.inputs, self.targets))
        if inputs is self.inputs and targets is self.targets:
            return self
        return Objective(self.predict, self.loss, inputs, targets, whole_batch=self.whole_batch)

    def check_sample_by_sample(self) -> None:
        """Refuse predictions that need the whole batch, where single samples are looked at.

        **Raises:** ValueError for `whole_batch=True`.
        """
        if self.whole_batch:
            raise ValueError(
                "objective: predictions need the whole batch (whole_batch=True), so that there is"
                " nothing to be said about single samples: no kink patterns, no tangent kernels."
            )

    @in_full_precision
    def _predict(self, params: PyTree, inputs: Array) -> Float[Array, "some ..."]:
        """Predictions on all samples or some of them."""
        if inputs.shape[0] < self.samples:
            check_independent_on_trial("predict", self.predict, (params,), (inputs,))
        return self.predict(params, inputs)

    def _losses(self, params: PyTree, inputs: Array, targets: Array) -> Float[Array, "some"]:
        predictions = self._predict(params, inputs)
        if inputs.shape[0] < self.samples and not isinstance(self.loss, Loss):
            check_independent_on_trial("loss", self.loss, (), (predictions, targets))
        return self.checked_losses(predictions, targets)

    def checked_losses(self, predictions: Array, targets: Array) -> Float[Array, "samples"]:
        """The loss of every sample, refused unless it is one number for each."""
        losses = self.loss(predictions, targets)
        # A mean instead of one number per sample would be averaged twice, unnoticed.
        if losses.shape != predictions.shape[:1]:
            raise ValueError(
                f"loss: returned shape {losses.shape}; expected one number per sample,"
                f" {predictions.shape[:1]}."
            )
        return losses

    @in_full_precision
    def _sum(self, batch: Callable[[Array, Array], PyTree], companion: Array) -> PyTree:
        """The sum over samples of `batch(inputs, companion)`."""
        return self.reduction.sum(batch, self.inputs, companion)

    @in_full_precision
    def _per_sample(self, batch: Callable[..., Any], *arrays: Array) -> Any:
        """`batch(*arrays)` with a leading axis of all samples."""
        return self.reduction.per_sample(batch, *arrays)
