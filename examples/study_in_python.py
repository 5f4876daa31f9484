"""A study declared in Python: Adam and gradient descent on a residual network, with accuracies.

python examples/study_in_python.py
"""

import tempfile

import jax
import xarray as xr

import thalweg as tw

jax.config.update("jax_enable_x64", True)

spec = tw.study.Spec(
    study=tw.study.StudySection(name="Adam and gradient descent"),
    data=tw.datasets.DigitsSection(samples=100),
    network=tw.networks.ResidualSection(width=8, blocks=3),
    loss=tw.study.LossSection(kind="cross_entropy"),
    flow=tw.study.FlowsSection(t1=2.0, saves=10),
    optimizers=[
        tw.optimizers.GradientDescentSection(step_size=0.02),
        tw.optimizers.OptaxSection(transformation="adam", arguments={"learning_rate": 0.02}),
    ],
    observables=tw.study.ObservablesSection(record=["accuracy", "gradient_norm"]),
)

with tempfile.TemporaryDirectory() as folder:
    report = tw.study.run_study(spec, folder, only=["observables"])
    page = report.read_text()
    with xr.open_datatree(f"{folder}/study.zarr", engine="zarr", consolidated=False) as tree:
        names = ("gradient_flow", "gradient_descent", "adam")
        accuracy = {name: tree[f"observables/{name}/accuracy"].to_numpy() for name in names}
        loss = tree["optimizers/adam/loss"].to_numpy()

for name, values in accuracy.items():
    print(f"{name}: accuracy {values[0]:.2f} at first, {values[-1]:.2f} at last")
