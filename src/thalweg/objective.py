"""The landscape f(theta): a prediction function, a loss and the full-batch data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ._checks import check_positive_integer, check_precision, checked_data
from ._independence import FEWEST, check_independent, check_independent_on_trial
from ._kinks import has_kinks, kink_pattern, mean_over_segment, unread_operations
from ._pickling import state_by_name
from ._precision import in_full_precision
from ._roughness import ROUGHNESS_COST, is_rough
from ._trees import check_digits, check_params
from .losses import Loss


class Kinks(NamedTuple):
    """Whether a landscape has kinks (`exist`), can be averaged over them since they were read off
    the computation (`read`), and how many gradients it took to know.
    """

    exist: bool
    read: bool
    gradients: int


class Objective(eqx.Module):
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
    - `micro_batch`: samples that are worked on at once. Bounds the memory of every product below
        without changing its result (beyond the order of summation). `None`: all at once. On a CPU
        a few samples at once can be faster, since what lies between the layers then stays in the
        caches: `thalweg.networks.convolutional` with 50 takes a half to two thirds of the time.
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
    micro_batch: int | None = eqx.field(static=True)
    whole_batch: bool = eqx.field(static=True)

    def __init__(
        self,
        predict: Callable[[PyTree, Array], Array],
        loss: Callable[[Array, Array], Array],
        inputs: Any,
        targets: Any,
        *,
        micro_batch: int | None = None,
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
        self.predict = predict
        self.loss = loss
        self.inputs = checked_data(inputs, "inputs")
        self.targets = checked_data(targets, "targets")
        if self.inputs.shape[0] != self.targets.shape[0]:
            raise ValueError(
                f"targets: {self.targets.shape[0]} samples, but inputs has {self.inputs.shape[0]}."
            )
        if micro_batch is not None:
            check_positive_integer(micro_batch, "micro_batch")
            micro_batch = int(micro_batch)
        self.micro_batch = micro_batch
        if not isinstance(whole_batch, bool):
            raise TypeError(f"whole_batch: expected True or False, got {whole_batch!r}.")
        if whole_batch and micro_batch is not None:
            raise ValueError(
                f"micro_batch: {micro_batch} samples at once, but predictions may depend on all of"
                " them (whole_batch=True). Leave it out."
            )
        self.whole_batch = whole_batch
        if params is not None:
            self.check(params)

    def __getstate__(self):
        return state_by_name(self)

    # Identity, so that a bound method such as `objective.value` can be handed to `jax.jit`.

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self is other

    @property
    def samples(self) -> int:
        """Number of samples, N."""
        return self.inputs.shape[0]

    def predictions(self, params: PyTree) -> Float[Array, "samples ..."]:
        """Predictions on every sample."""
        return self._per_sample(lambda inputs: self._predict(params, inputs))

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

    def along(self, displacement: PyTree) -> "Segment":
        """The same landscape, with every gradient the mean over a segment: see `mean_gradient`."""
        return Segment(self, displacement)

    def kinks(self, params: PyTree) -> "Kinks":
        """Whether the network or the loss has kinks.

        They are read off the computation, which costs nothing. Where a network hides them (in
        loops, branches, foreign code, orderings, derivatives of its own), they are felt for: 66
        gradients along two short paths from `params`.
        """
        few = slice(None) if self.whole_batch else slice(1)
        inputs, targets = self.inputs[few], self.targets[few]

        def losses(p):
            return self._checked_losses(self.predict(p, inputs), targets)

        if has_kinks(losses, params):
            return Kinks(exist=True, read=True, gradients=0)
        if not unread_operations(losses, params):
            return Kinks(exist=False, read=False, gradients=0)
        return Kinks(bool(is_rough(self.gradient, params)), False, ROUGHNESS_COST)

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
        return self._per_sample(jax.vmap(sides))

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
            lambda x: jax.jvp(lambda p: self._predict(p, x), (params,), (vector,))[1]
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

    def mean_of_sums(self, batch: Callable[[Array, Array], PyTree]) -> PyTree:
        """The mean over samples of anything that `batch(inputs, targets)` sums up for some of them.

        Every mean above is one of these; micro-batches are split and brought together in here.
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
        try:
            first = self.predictions(params)
        except TypeError as error:
            # Shapes that do not fit, most of the time.
            raise TypeError(
                f"predict: failed for inputs of shape {self.inputs.shape}: {error} It is called as"
                " predict(params, inputs), with all samples at once; for a function of one sample,"
                " use jax.vmap."
            ) from error
        if not hasattr(first, "shape") or not hasattr(first, "dtype"):
            raise TypeError(f"predict: expected one array, got {type(first).__name__}.")
        if first.ndim == 0 or first.shape[0] != self.samples:
            raise ValueError(
                f"predict: returned shape {first.shape} for {self.samples} samples; the leading"
                " axis must be the samples."
            )
        if not jnp.issubdtype(first.dtype, jnp.floating):
            raise TypeError(
                f"predict: expected real floating-point predictions, got {first.dtype}; they must"
                " have derivatives."
            )
        check_precision(first.dtype, "predict")
        if not np.isfinite(np.asarray(first)).all():
            raise ValueError("predict: returned NaN or infinity at these parameters.")
        if not np.array_equal(np.asarray(first), np.asarray(self.predictions(params))):
            raise ValueError(
                "predict: two calls with the same parameters differ, so there is no landscape to"
                " follow. Switch off dropout and other randomness."
            )
        if not self.whole_batch:
            self._check_predictions(params, first)
        if hasattr(self.loss, "check"):
            self.loss.check(first.shape, self.targets)  # pyright: ignore[reportFunctionMemberAccess]
        losses = self._checked_losses(first, self.targets)
        check_precision(losses.dtype, "loss")
        if not np.isfinite(np.asarray(losses)).all():
            raise ValueError("loss: NaN or infinity at these parameters.")
        if not (self.whole_batch or isinstance(self.loss, Loss)):
            check_independent("loss", self.loss, losses, first, self.targets)

    def _check_predictions(self, params: PyTree, predictions: Array) -> None:
        """Whether they are independent: as many samples at once as there will be, or a few."""
        together = max(FEWEST, self.micro_batch or self.samples)
        inputs, whole = self.inputs[:together], predictions[:together]
        if self.micro_batch is not None and self.micro_batch < len(inputs):
            whole = self.predict(params, inputs)
        check_independent("predict", partial(self.predict, params), whole, inputs)

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
        return self._checked_losses(predictions, targets)

    def _checked_losses(self, predictions: Array, targets: Array) -> Float[Array, "samples"]:
        losses = self.loss(predictions, targets)
        # A mean instead of one number per sample would be averaged twice, unnoticed.
        if losses.shape != predictions.shape[:1]:
            raise ValueError(
                f"loss: returned shape {losses.shape}; expected one number per sample,"
                f" {predictions.shape[:1]}."
            )
        return losses

    # The two methods below are the only places where samples are split and brought together
    # again: whoever shards the data over devices has to look nowhere else.

    @in_full_precision
    def _sum(self, batch: Callable[[Array, Array], PyTree], companion: Array) -> PyTree:
        """Sum `batch(inputs, companion)` over micro-batches; `companion` is split like inputs."""
        if self.micro_batch is None or self.micro_batch >= self.samples:
            return batch(self.inputs, companion)
        whole, rest = divmod(self.samples, self.micro_batch)
        head = whole * self.micro_batch
        split = [_split(a, whole, head) for a in (self.inputs, companion)]
        shapes = jax.eval_shape(batch, *(s[0] for s in split))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(total, pair):
            return jax.tree.map(jnp.add, total, batch(*pair)), None

        total, _ = jax.lax.scan(add, zero, tuple(split))
        if rest:
            total = jax.tree.map(jnp.add, total, batch(self.inputs[head:], companion[head:]))
        return total

    @in_full_precision
    def _per_sample(self, batch: Callable[[Array], Any]) -> Any:
        """Apply `batch(inputs)` to micro-batches and put the samples back in a row."""
        if self.micro_batch is None or self.micro_batch >= self.samples:
            return batch(self.inputs)
        whole, rest = divmod(self.samples, self.micro_batch)
        head = whole * self.micro_batch
        parts = jax.lax.map(batch, _split(self.inputs, whole, head))
        result = jax.tree.map(lambda a: a.reshape((head, *a.shape[2:])), parts)
        if rest:
            last = batch(self.inputs[head:])
            result = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), result, last)
        return result


class Segment(eqx.Module):
    """The landscape along a short segment of parameters: see `Objective.mean_gradient`."""

    objective: Objective
    displacement: PyTree[Array]

    def gradient(self, params: PyTree) -> PyTree:
        """The mean gradient over the segment with `params` in its middle."""
        return self.objective.mean_gradient(params, self.displacement)


def _split(array: Array, parts: int, head: int) -> Array:
    return array[:head].reshape((parts, head // parts, *array.shape[1:]))
