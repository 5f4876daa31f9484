"""Gradient flow of a Flax NNX module, split into its graph and its state."""

import jax
import jax.numpy as jnp
from flax import nnx

import thalweg as tw

jax.config.update("jax_enable_x64", True)


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 16, param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(16, 10, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, inputs):
        return self.out(jnp.tanh(self.hidden(inputs)))


data = tw.datasets.digits(200)

# The graph says how the module is built, the state holds its arrays: the state is the parameters.
# A module with other state than parameters (batch statistics, random numbers) is switched to
# evaluation first, `network.eval()`, and split into `graph, params, rest` with
# `nnx.split(network, nnx.Param, ...)`.
graph, params = nnx.split(Network(rngs=nnx.Rngs(0)))


def predict(params, inputs):
    return nnx.merge(graph, params)(inputs)


objective = tw.Objective(predict, tw.losses.cross_entropy, data.inputs, data.targets, params=params)
flow = tw.integrate(tw.GradientFlow(), objective, params, t1=2.0, save_at=[0.0, 1.0, 2.0])

print("time:", flow.times)
print("loss:", flow.loss)
print("estimated distance to the exact flow:", flow.error)
