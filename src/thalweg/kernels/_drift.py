"""How far the tangent kernel of a network has moved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._checks import check_positive_integer
from .._precision import jit
from ..objectives import Objective
from ._empirical import contracted, factors


class KernelDrift(eqx.Module):
    """The distance of the tangent kernel from what it was at the first saved time, relatively.

        run = tw.observe(run, drift=tw.kernels.KernelDrift())
        run.observables["drift"]  # shape (saves,), the first is 0

    `|K - K_0| / |K_0|` in the Frobenius norm, over all pairs of outputs, on samples spread evenly
    over the data. Small throughout, the run is lazy, and a frozen kernel predicts it; else the
    network learns features (the rich regime).

    **Arguments:**

    - `samples`: on how many; at most as many as there are.

    ??? cite "Reference"

        Chizat, Oyallon and Bach, "On lazy training in differentiable programming", Advances in
        Neural Information Processing Systems 32 (2019).
    """

    samples: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        check_positive_integer(self.samples, "samples")

    def price(self, objective: Objective, params: PyTree) -> float:
        """How many gradients one kernel is worth: its samples' share of them, for each output."""
        outputs = jax.eval_shape(objective.predictions, params).size / objective.samples
        return outputs * min(self.samples, objective.samples) / objective.samples

    def initial(self, objective: Objective, params: PyTree) -> Float[Array, "..."]:
        """The kernel at the first saved time."""
        return _kernel(objective, params, self.samples)

    def __call__(
        self, objective: Objective, params: PyTree, memory: Float[Array, "..."]
    ) -> tuple[Float[Array, ""], Float[Array, "..."]]:
        """How far it is, and the kernel that it is far from."""
        now = _kernel(objective, params, self.samples)
        return jnp.linalg.norm((now - memory).ravel()) / jnp.linalg.norm(memory.ravel()), memory


@jit
def _kernel(objective, params, samples):
    count = min(samples, objective.samples)
    chosen = np.linspace(0, objective.samples - 1, count).round().astype(int)
    found = factors(params, objective, objective.inputs_at(chosen))
    return jnp.asarray(contracted(found, found, "all"))
