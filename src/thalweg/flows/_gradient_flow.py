"""Gradient flow."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..solvers import FirstOrder
from ._base import Decay, Flow
from ._section import FlowSection


class GradientFlow(Flow):
    """Gradient flow, `theta' = -grad f(theta)`: the limit of gradient descent at small steps."""

    name: ClassVar[str] = "gradient flow"
    real_spectrum: ClassVar[bool] = True

    @property
    def equation(self):
        return FirstOrder()

    def initial_state(self, params):
        return params

    def params(self, state):
        return state

    def vector_field(self, t, state, objective):
        return jax.tree.map(jnp.negative, objective.gradient(state))

    def decay(self, eigenvalue):
        return Decay(2 * eigenvalue, 0.0)

    def response(self, eigenvalue, time):
        """`exp(-eigenvalue * time)`."""
        return np.exp(-np.multiply(eigenvalue, time))


class GradientFlowSection(FlowSection):
    """`kind = "gradient_flow"`."""

    kind: Literal["gradient_flow"] = "gradient_flow"

    def make(self) -> GradientFlow:
        return GradientFlow()
