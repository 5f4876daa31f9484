"""Gradient flow of a plain function: a logistic regression whose parameters are a dictionary."""

import jax
import jax.numpy as jnp

import thalweg as tw

jax.config.update("jax_enable_x64", True)


def predict(params, inputs):
    return inputs @ params["weight"] + params["bias"]


data = tw.datasets.digits(200)
params = {"weight": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}

# With `params`, the objective is evaluated once and refuses what would spoil every later number.
objective = tw.Objective(predict, tw.losses.cross_entropy, data.inputs, data.targets, params=params)
flow = tw.integrate(tw.GradientFlow(), objective, params, t1=2.0, save_at=[0.0, 1.0, 2.0])

print("time:", flow.times)
print("loss:", flow.loss)
print("estimated distance to the exact flow:", flow.error)
