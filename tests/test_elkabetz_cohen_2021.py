"""Published experiments, made small."""

from dataclasses import replace

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from thalweg.papers import elkabetz_cohen_2021 as paper
from thalweg.papers.elkabetz_cohen_2021._comparison import FLOW, Comparison, read_comparisons
from thalweg.papers.elkabetz_cohen_2021._findings import findings
from thalweg.papers.elkabetz_cohen_2021._sides import Parting, _entering, _Separations
from thalweg.study import StoreError

from .studies import write_idx

SMALL = paper.Protocol(step_size=1e-3, steps=200, looks=4, samples=20)
CHOICE = {"networks": ["linear", "relu"], "precisions": ["float64"], "ratios": [2, 4]}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write_idx(folder / "images", seed=0)
    page, found = paper.reproduce(folder / "images", folder / "out", **CHOICE, protocol=SMALL)
    return folder, page, found


def gradient_descent(layers, inputs, labels, activation, step, steps):
    """By hand: full batch, mean cross-entropy, no biases."""
    layers = [np.array(w) for w in layers]
    onto = np.eye(layers[-1].shape[0])[labels]
    for _ in range(steps):
        entered, left = [], [inputs]
        for w in layers:
            entered.append(left[-1] @ w.T)
            left.append(activation(entered[-1]))
        z = entered[-1] - entered[-1].max(axis=1, keepdims=True)
        signal = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - onto) / len(inputs)
        for i in reversed(range(len(layers))):
            gradient = signal.T @ left[i]
            if i:
                slope = entered[i - 1] > 0 if activation(-1.0) == 0 else 1.0
                signal = (signal @ layers[i]) * slope
            layers[i] = layers[i] - step * gradient
    return np.concatenate([w.ravel() for w in layers])


@pytest.mark.parametrize(
    ("network", "activation"),
    [("linear", lambda z: z), ("relu", lambda z: np.maximum(z, 0))],
    ids=["linear", "relu"],
)
def test_distances_are_those_of_gradient_descent_by_hand(done, network, activation):
    folder, _, _ = done
    (found,) = (c for c in read_comparisons(folder / "out", paper.NETWORKS) if c.network == network)
    data = tw.datasets.idx(folder / "images")
    _, key = jr.split(jr.key(1))
    start = tw.networks.fully_connected(
        [16, 50, 50, 10], activation=network, bias=False, init="xavier", key=key
    )
    inputs, labels = np.asarray(data.inputs).reshape(20, -1), np.asarray(data.targets)
    layers = [layer.weight for layer in start.layers]
    ends = {
        r: gradient_descent(layers, inputs, labels, activation, 1e-3 / r, 200 * r)
        for r in (1, 2, 4)
    }
    np.testing.assert_array_equal(found.iterations, [0, 50, 100, 150, 200])
    for r in (2, 4):
        np.testing.assert_allclose(
            found.distance[r][-1], np.linalg.norm(ends[1] - ends[r]), rtol=1e-6
        )
    began = np.concatenate([np.ravel(w) for w in layers])
    np.testing.assert_allclose(found.travelled[-1], np.linalg.norm(ends[1] - began), rtol=1e-9)
    assert found.gradients[4] == 800
    # Extrapolated to a step of zero, within what either is known to.
    limit = np.linalg.norm(ends[1] - (2 * ends[4] - ends[2]))
    slack = found.flow_error[-1] + 0.1 * found.distance[FLOW][-1]
    assert abs(found.distance[FLOW][-1] - limit) < slack


def test_a_linear_network_passes_the_ratio_test(done):
    folder, page, found = done
    linear = read_comparisons(folder / "out", paper.NETWORKS)[0]
    assert linear.of_first_order
    np.testing.assert_allclose(linear.in_theory(4), 1.5)
    np.testing.assert_allclose(linear.predicted[-1], linear.distance[FLOW][-1], rtol=0.02)
    assert found[0].level == "good"
    assert "linear, float64: discretisation." in found[0].text
    text = page.read_text()
    assert "linear-float64/report.html" in text
    assert (folder / "out" / "linear-float64" / "report.html").exists()
    # Another protocol than the paper's is not held against its numbers.
    assert "published run" not in text


def test_what_is_done_is_not_done_again(done):
    folder, page, found = done
    store = folder / "out" / "linear-float64" / "study.zarr" / "optimizers"
    before = max(p.stat().st_mtime_ns for p in store.rglob("*"))
    again = paper.reproduce(folder / "images", folder / "out", **CHOICE, protocol=SMALL)
    assert again == (page, found)
    assert max(p.stat().st_mtime_ns for p in store.rglob("*")) == before
    with pytest.raises(StoreError, match="of another seed"):
        paper.reproduce(
            folder / "images",
            folder / "out",
            **{**CHOICE, "networks": ["strided"], "seed": 2},
            protocol=SMALL,
        )
    with pytest.raises(StoreError, match="of other ratios"):
        paper.reproduce(
            folder / "images", folder / "out", **{**CHOICE, "ratios": [2, 5]}, protocol=SMALL
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"networks": ["lineer"]}, "did you mean 'linear'"),
        ({"networks": []}, "at least one"),
        ({"precisions": ["float16"]}, "did you mean 'float64'|float32"),
        ({"ratios": [1]}, "at least 2"),
        ({"ratios": [2.5]}, "whole numbers"),
        ({"protocol": paper.PUBLISHED_PROTOCOL}, "holds 20 images"),
        # Not the first ten of twenty, silently.
        ({"protocol": paper.Protocol(samples=10)}, "holds 20 images"),
    ],
)
def test_mistakes(done, tmp_path, wrong, message):
    folder, _, _ = done
    with pytest.raises(ValueError, match=message):
        paper.reproduce(folder / "images", tmp_path, **{**CHOICE, "protocol": SMALL, **wrong})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", ["convolutional_strided", "convolutional_pooled"])
def test_what_enters_the_activations_leads_to_the_prediction(make):
    network = getattr(tw.networks, make)(side=12, key=jr.key(0))
    image = jr.normal(jr.key(1), (12, 12))
    entered = _entering(network, image)
    prediction = network.layers[-1](jnp.maximum(entered[-1], 0))
    np.testing.assert_allclose(prediction, network(image), rtol=1e-12)
    # 6 and 16 channels of 6 x 6 and 1 x 1 with strides, of 12 x 12 and 2 x 2 before pooling.
    convolved = [216, 16] if make.endswith("strided") else [864, 64]
    assert [z.size for z in entered] == [*convolved, 120, 84]


def test_the_pair_that_was_led_away_is_found():
    """One pair crosses a little later in one of the runs, another goes to different sides."""
    apart, counts = _Separations((1, 3)), []
    for look in range(12):
        ours = np.array([[5.0 - look, 1 + 0.02 * look, 1.0]])
        theirs = np.array([[4.0 - look, -0.02 * (look - 1) if look > 1 else 1.0, 1.0]])
        counts.append(apart.add(look, ours, theirs))
    assert counts == [0, 0, 1, 1, 2, *[1] * 7]
    assert apart.first_of_the_deepest() == (0, 1)
    found = apart.parting(0, 1, layer=2, unit=7)
    assert (found.look, found.deepest, found.layer, found.unit) == (2, 11, 2, 7)
    np.testing.assert_allclose(found.depths, (1.22, -0.2))


def comparison(
    precision="float64", factor=(1.6, 1.8, 1.9, 2.0), kinks=False, parting=None, first=1e-3
):
    """At r = 2 a distance of `first`, at the others and the flow so many times 1e-3."""
    ratios = (5, 10, 20, FLOW)
    distance = {2: first, **{r: 1e-3 * f for r, f in zip(ratios, factor, strict=True)}}
    rows = {r: np.array([0.0, d]) for r, d in distance.items()}
    every = (1, 2, 5, 10, 20)
    return Comparison(
        network="relu" if kinks else "linear",
        precision=precision,
        own_flow=precision == "float64",
        published_protocol=True,
        iterations=np.array([0, 100]),
        loss={r: np.array([2.0, 1.0]) for r in every},
        flow_loss=np.array([2.0, 1.0]),
        travelled=np.array([0.0, 1.0]),
        distance=rows,
        proxy={r: np.array([0.0, 1e-4]) for r in every[1:]},
        flow_error=np.array([0.0, 1e-6]),
        predicted=None,
        flips={r: np.zeros(2) for r in every} if kinks else {},
        apart={r: np.ones(2) for r in every[1:]} if kinks else {},
        parting=dict.fromkeys(every[1:], parting) if kinks else {},
        gradients={FLOW: 400, **{r: 100 * r for r in every}},
        flow_error_gradients=100,
    )


ROUND_OFF = (3.0, 8.1, 22.0, 2.0)


def test_causes_are_told_apart():
    def text(*comparisons):
        found = findings(list(comparisons))
        # A sentence for every comparison, one more for every flow, of which float32 has none here.
        return found[0 if len(comparisons) == 1 else 2].text

    exact, single = comparison(), comparison("float32", ROUND_OFF)
    assert "discretisation." in text(exact)
    assert "round-off. At the end" in text(exact, single)
    assert "float64 tells" in text(single)
    assert "beyond first order" in text(comparison(factor=(1.4, 1.5, 1.6, 1.7)))
    # Distances that do not depend on the smaller step are not of first order, whatever the ratios.
    constant = comparison(factor=(1.0, 1.0, 1.0, 1.0))
    late = replace(constant, distance={r: constant.distance[r] for r in (10, 20, FLOW)})
    assert constant.of_first_order is False
    assert late.of_first_order is False
    # A flow that is not known well enough is no witness.
    vague = replace(comparison(factor=(1.6, 1.8, 1.9, 4.0)), flow_error=np.array([0, 1e-3]))
    assert vague.of_first_order is True
    alone = replace(vague, distance={r: vague.distance[r] for r in (20, FLOW)})
    assert alone.of_first_order is None
    assert "cannot be told" in text(alone)
    assert "cannot be told" in text(comparison(factor=(0, 0, 0, 0), first=0.0))
    branch = Parting(sample=72, layer=2, unit=34, look=0, deepest=1, depths=(-0.02, 0.03))
    parted = comparison(factor=(7.0, 7.1, 7.2, 7.2), kinks=True, parting=branch)
    assert "unit 34 of layer 2 sees sample 72" in text(parted)
    same = comparison("float32", (7.0, 7.1, 7.2, 7.2), kinks=True, parting=branch)
    assert "not round-off either" in text(parted, same)
    other = comparison("float32", (1.0, 7.1, 1.2, 7.2), kinks=True)
    assert "rounding decides too" in text(parted, other)
    assert "hop differently" in text(parted, other)
