"""Every example runs, and what it shows agrees with NumPy."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def check_flow(flow):
    assert flow.status.ok
    assert np.all(np.diff(flow.loss) < 0)
    assert np.all(flow.error < 1e-4)


def check_hidden_layer(objective, params, parts, residual):
    """The gradient of a network with one hidden tanh layer, by backpropagation in NumPy.

    `parts` takes kernel, bias, kernel, bias out of the parameters; `residual` is the derivative of
    the loss by the predictions.
    """
    hidden, hidden_bias, out, out_bias = parts(params)
    inputs = np.asarray(objective.inputs)
    activity = np.tanh(inputs @ hidden + hidden_bias)
    forward = residual(activity @ out + out_bias, np.asarray(objective.targets)) / len(inputs)
    back = (forward @ out.T) * (1 - activity**2)
    expected = inputs.T @ back, back.sum(0), activity.T @ forward, forward.sum(0)
    for ours, theirs in zip(parts(objective.gradient(params)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def check_plain_function(objective, params, flow, **_):
    check_flow(flow)
    inputs, labels = np.asarray(objective.inputs), np.asarray(objective.targets)
    residual = (0.1 - np.eye(10)[labels]) / len(labels)
    gradient = objective.gradient(params)
    np.testing.assert_allclose(gradient["weight"], inputs.T @ residual, atol=1e-14)
    np.testing.assert_allclose(gradient["bias"], residual.sum(axis=0), atol=1e-14)


def check_equinox(objective, params, flow, **_):
    def parts(params):
        hidden, out = params.layers
        return [np.asarray(x) for x in (hidden.weight.T, hidden.bias, out.weight.T, out.bias)]

    check_flow(flow)
    check_hidden_layer(objective, params, parts, lambda predictions, y: predictions - y)


def check_flax_nnx(objective, params, flow, **_):
    def parts(params):
        return [
            np.asarray(jax.tree.leaves(params[layer][name])[0])
            for layer in ("hidden", "out")
            for name in ("kernel", "bias")
        ]

    def residual(predictions, labels):
        return softmax(predictions) - np.eye(10)[labels]

    check_flow(flow)
    check_hidden_layer(objective, params, parts, residual)


def check_two_variables(flow, curvature, certificate, **_):
    assert flow.status.ok
    assert certificate.step_size > 0
    for (x, y), found in zip(np.asarray(flow.params), curvature.largest.value, strict=True):
        hessian = np.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200]])
        np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[-1:], rtol=1e-9)


def check_study(page, accuracy, loss, **_):
    assert "Adam: compared with no flow." in page
    assert "Gradient descent with step" not in page, "there is no comparison to speak of yet"
    assert loss[-1] < 0.2 * loss[0]
    # Out of 100 samples.
    for shares in accuracy.values():
        np.testing.assert_allclose(100 * shares, np.round(100 * shares), atol=1e-9)
    assert accuracy["adam"][-1] > accuracy["gradient_descent"][-1] > accuracy["adam"][0]


# What to check beyond "it runs": one line for an example that claims more.
CHECKS = {
    "function_of_two_variables.py": check_two_variables,
    "objective_equinox.py": check_equinox,
    "objective_flax_nnx.py": check_flax_nnx,
    "objective_plain_function.py": check_plain_function,
    "study_in_python.py": check_study,
}


@pytest.mark.parametrize("name", sorted({p.name for p in EXAMPLES.glob("*.py")} | set(CHECKS)))
def test_example(name, capsys):
    namespace = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out, "an example shows something"
    if name in CHECKS:
        CHECKS[name](**namespace)
