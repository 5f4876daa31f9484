"""Gradient flow and descent in a curved valley: a function of two variables and its Hessian."""

import jax
import jax.numpy as jnp
import numpy as np

import thalweg as tw

jax.config.update("jax_enable_x64", True)


def rosenbrock(p):
    x, y = p
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def hessian(p):
    x, y = p
    return jnp.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0]])


objective = tw.FunctionObjective(rosenbrock, hessian=hessian)
params = jnp.array([-1.2, 1.0])

run = tw.descend(tw.GradientDescent(1e-3), objective, params, steps=4000, save_every=400)
flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times)
gap = tw.compare(run, flow)
curvature = tw.observe(flow, extreme=tw.ExtremeEigenvalues()).observables["extreme"]
certificate = tw.certify(
    objective,
    tw.integrate(tw.GradientFlow(), objective, params, save_at=np.linspace(0, 0.05, 51)),
    epsilon=0.1,
)

for i, time in enumerate(gap.times):
    sharpness, residual = curvature.largest.value[i, 0], curvature.largest.residual[i, 0]
    print(
        f"t = {time:.1f}  distance {gap.distance[i]:.2e} +- {gap.error[i]:.1e}"
        f"  sharpness {sharpness:.1f} +- {residual:.1e}"
    )
print(gap)
print(certificate)
