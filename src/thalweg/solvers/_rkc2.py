"""The second-order Runge-Kutta-Chebyshev method, RKC2.

An explicit Runge-Kutta method with as many stages as a step asks for: the reach along the negative
real axis grows with the *square* of the cost. That suits fields whose Jacobian has a real or nearly
real spectrum, gradient flow above all, where the eigenvalues are those of the Hessian.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from diffrax import ThirdOrderHermitePolynomialInterpolation
from jaxtyping import Array, Int

from .._trees import tree_dtype
from ._chebyshev import chebyshev_step, stages_for
from ._stabilised import Advance, StabilisedSolver


class RKC2(StabilisedSolver):
    """Runge-Kutta-Chebyshev method of order two with its own spectral radius estimate.

    **Arguments:**

    - `safety`: the estimated spectral radius is multiplied by this before the number of stages is
        chosen (a power iteration approaches the radius from below).
    - `max_stages`: a step that would need more stages is declared failed, so that the controller
        tries a shorter one.

    ??? cite "Reference"

        Sommeijer, Shampine and Verwer, "RKC: an explicit solver for parabolic PDEs", Journal of
        Computational and Applied Mathematics 88 (1998) 315-326; the method itself is due to van der
        Houwen and Sommeijer (1980).
    """

    safety: float = 1.2
    max_stages: int | Int[Array, ""] = 500

    interpolation_cls: ClassVar[Callable[..., ThirdOrderHermitePolynomialInterpolation]] = (
        ThirdOrderHermitePolynomialInterpolation
    )

    def order(self, terms):
        return 2

    def error_order(self, terms):
        # The estimate is of the local error itself, h^3, not of an embedded first-order method's.
        return 3

    def advance(self, terms, t0, t1, y0, args, f0, reach):
        control = terms.contr(t0, t1)
        needed = stages_for(reach)
        stages = jnp.minimum(needed, self.max_stages)
        k0 = terms.prod(f0, control)

        def increment(x, y):
            return terms.vf_prod(t0 + x * (t1 - t0), y, args, control)

        real = jnp.promote_types(tree_dtype(y0), jnp.result_type(t0))
        y1 = chebyshev_step(increment, y0, k0, stages, real)
        f1 = terms.vf(t1, y1, args)
        k1 = terms.prod(f1, control)
        # Leading term of the local error, h^3 y''' / 15, from both ends of the step.
        y_error = jax.tree.map(lambda a, b, ka, kb: 0.8 * (a - b) + 0.4 * (ka + kb), y0, y1, k0, k1)
        return Advance(
            y1=y1,
            f1=f1,
            y_error=y_error,
            dense_info={"y0": y0, "y1": y1, "k0": k0, "k1": k1},
            evaluations=stages,
            possible=needed <= self.max_stages,
        )

    def placed(self, dense_info, y0):
        y1 = jax.tree.map(jnp.add, y0, dense_info["y1"])
        return dense_info | {"y0": y0, "y1": y1}
