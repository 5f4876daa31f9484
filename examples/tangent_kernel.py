"""What the tangent kernel predicts for three optimizers, and what they do."""

import jax
import numpy as np

import thalweg as tw

jax.config.update("jax_enable_x64", True)

data = tw.datasets.digits(40).one_hot()
network = tw.networks.fully_connected([64, 256, 10], init="tangent_kernel", key=jax.random.key(0))
objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, data.inputs, data.targets)
steps = np.arange(0, 201, 10)

for optimizer in (tw.GradientDescent(0.5), tw.HeavyBall(0.5, 0.9), tw.Nesterov(0.5)):
    predicted = tw.predicted_run(optimizer, objective, network, steps)
    run = tw.descend(optimizer, objective, network, 200, save_every=10)
    run = tw.observe(run, drift=tw.kernels.KernelDrift())
    print(
        f"{optimizer.name}: loss {run.loss[-1]:.3g}, predicted {predicted.loss[-1]:.3g}; the kernel"
        f" moved by {run.observables['drift'][-1]:.1%}"
    )
    print(f"  in the long run: {tw.predicted_rate(optimizer, predicted)}")
