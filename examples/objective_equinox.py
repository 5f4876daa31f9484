"""Gradient flow of any Equinox module: its arrays are the parameters, the rest stays outside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import thalweg as tw

jax.config.update("jax_enable_x64", True)

data = tw.datasets.digits(200).one_hot()
network = eqx.nn.MLP(64, 10, width_size=16, depth=1, activation=jnp.tanh, key=jr.key(0))

# This module holds functions (its activations) among its leaves, and those cannot be trained. The
# modules of `tw.networks` hold arrays only: they are their own parameters, and `tw.networks.apply`
# is their prediction function.
params, static = eqx.partition(network, eqx.is_inexact_array)


def predict(params, inputs):
    return jax.vmap(eqx.combine(params, static))(inputs)


objective = tw.Objective(predict, tw.losses.squared_error, data.inputs, data.targets, params=params)
flow = tw.integrate(tw.GradientFlow(), objective, params, t1=2.0, save_at=[0.0, 1.0, 2.0])

print("time:", flow.times)
print("loss:", flow.loss)
print("estimated distance to the exact flow:", flow.error)
