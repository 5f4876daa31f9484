"""The published experiments, made small, against the same written out by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from thalweg.papers import bu_xu_chen_2021 as paper
from thalweg.papers.bu_xu_chen_2021._curves import Group, read_groups
from thalweg.papers.bu_xu_chen_2021._findings import findings
from thalweg.papers.bu_xu_chen_2021._forms import CascadedMomenta, PyTorchNesterov
from thalweg.papers.bu_xu_chen_2021._plan import saved_epochs
from thalweg.papers.bu_xu_chen_2021._published import BY_EPOCH, BY_WIDTH
from thalweg.papers.bu_xu_chen_2021._settings import unscaled
from thalweg.study import StoreError
from thalweg.study.store import Store

from .studies import write_idx

# As few widths as will do: everything is compiled anew for each.
SMALL = paper.Protocol(
    samples=20,
    width=20,
    epochs=14,
    heavy_ball_widths=(20, 30),
    nesterov_widths=(20,),
    widths_epochs=6,
)
PROTOCOLS = {"published": SMALL, "theory": replace(SMALL, nesterov_widths=(20, 80, 320))}
THEORY = {"experiments": ["nesterov", "nesterov-widths"], "settings": ["theory"]}


def read(folder):
    settings = [type(s)(PROTOCOLS[name]) for name, s in paper.SETTINGS.items()]
    groups = read_groups(Store.open(folder), settings)
    return {(g.setting.name, g.experiment): g for g in groups}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write_idx(folder / "images", seed=0)
    where = folder / "images", folder / "out"
    paper.reproduce(*where, settings=["published"], protocols=PROTOCOLS)
    page, found = paper.reproduce(*where, **THEORY, protocols=PROTOCOLS)
    return folder, page, found, read(folder / "out")


def sgd_of_pytorch(start, gradient, lr, momentum, epochs, nesterov=False):
    """Points before every epoch's step; `momentum(epoch)`, epochs counted from 1."""
    points, x, buffer = [start], start, None
    for epoch in range(1, epochs):
        g, m = gradient(x), momentum(epoch)
        buffer = g if buffer is None else m * buffer + g
        x = x - lr * (g + m * buffer if nesterov else buffer)
        points.append(x)
    return points


def two_momenta(start, gradient, lr, first, second, epochs):
    """Two buffers, one behind the other, with the roots for momenta; one begins a step late."""
    spread = np.sqrt(first**2 + 4 * second)
    points, x, one, two = [start], start, None, None
    for _ in range(1, epochs):
        g = gradient(x)
        if one is None:
            one, step = g, g
        else:
            one = (first + spread) / 2 * one + g
            two = one if two is None else (first - spread) / 2 * two + one
            step = two
        x = x - lr * step
        points.append(x)
    return points


def nesterov(start, gradient, lr, d, epochs):
    points = [start, start]
    for k in range(epochs - 1):
        ahead = points[-1] + k / (k + d) * (points[-1] - points[-2])
        points.append(ahead - lr * gradient(ahead))
    return points[1:]


class ByHand:
    """The published network and its mean squared error, as one row of numbers."""

    def __init__(self, inputs, targets, width, key):
        network = unscaled(inputs.shape[1], width, key)
        inner, outer = network.layers
        parts = [np.float32(a).astype(float) for a in (inner.weight, inner.bias, outer.weight[0])]
        self.inputs, self.targets, self.width = inputs, targets, width
        self.start = np.concatenate([p.ravel() for p in parts])

    def _parts(self, x):
        m, features = self.width, self.inputs.shape[1]
        return x[: m * features].reshape(m, features), x[m * features : -m], x[-m:]

    def loss(self, x):
        w, b, a = self._parts(x)
        return np.mean((np.maximum(self.inputs @ w.T + b, 0) @ a - self.targets) ** 2)

    def gradient(self, x):
        w, b, a = self._parts(x)
        entered = self.inputs @ w.T + b
        left = np.maximum(entered, 0)
        signal = 2 * (left @ a - self.targets) / len(self.targets)
        back = signal[:, None] * a * (entered > 0)
        return np.concatenate([(back.T @ self.inputs).ravel(), back.sum(axis=0), left.T @ signal])


@pytest.fixture(scope="module")
def images(done):
    data = tw.datasets.idx(done[0] / "images", normalise=None)
    return np.asarray(data.inputs).reshape(20, -1), np.asarray(data.targets, float)


def published_points(problem, label, lr, epochs):
    """By the method's label, as the published code made it."""
    gradient, start = problem.gradient, problem.start
    if label.startswith("two momenta"):
        first, second = (float(v) for v in label.removeprefix("two momenta, ").split(" and "))
        return two_momenta(start, gradient, lr, first, second, epochs)
    if label.startswith("Nesterov"):
        d = float(label.split("= ")[1])
        schedule = lambda k: (k - 1) / (k + d - 1)  # noqa: E731
        return sgd_of_pytorch(start, gradient, lr, schedule, epochs, nesterov=True)
    beta = float(label.split("= ")[1]) if "= " in label else 0.0
    return sgd_of_pytorch(start, gradient, lr, lambda _: beta, epochs)


@pytest.mark.parametrize("experiment", paper.EXPERIMENTS)
def test_published_losses_are_those_of_the_published_code_by_hand(done, images, experiment):
    group = done[3]["published", experiment]
    assert (
        len(group.curves)
        == {
            "heavy-ball": 4,
            "nesterov": 5,
            "higher-momentum": 3,
            "heavy-ball-widths": 6,
            "nesterov-widths": 3,
        }[experiment]
    )
    for curve in group.curves:
        problem = ByHand(*images, curve.run.width, jr.key(1))
        lr = 5e-5 if group.by_width else 1e-4
        points = published_points(problem, curve.run.method.label, lr, curve.run.epochs)
        assert curve.epochs[-1] == (6 if group.by_width else 14)
        losses = [problem.loss(points[epoch - 1]) for epoch in curve.epochs]
        np.testing.assert_allclose(curve.loss, losses, rtol=2e-5)


def test_the_theory_is_the_linearised_network_by_hand(done, images):
    inputs, targets = images
    inputs = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    inputs = inputs.astype(np.float32).astype(float)
    group = done[3]["theory", "nesterov"]
    network = tw.networks.two_layer(inputs.shape[1], SMALL.width, key=jr.key(1))
    weights = np.concatenate([network.positive, network.negative]).astype(np.float32)
    signs = np.repeat([1.0, -1.0], [len(network.positive), len(network.negative)])
    signs /= np.sqrt(SMALL.width)
    on = inputs @ weights.T.astype(float) > 0
    start = np.maximum(inputs @ weights.T.astype(float), 0) @ signs
    # Rows of the Jacobian, which the linearised network keeps.
    jacobian = (on * signs)[:, :, None] * inputs[:, None, :]
    jacobian = jacobian.reshape(20, -1)
    step = float(group.curves[0].optimizer.step_size)
    np.testing.assert_allclose(
        group.curves[0].curvatures["start"][0],
        np.linalg.eigvalsh(jacobian @ jacobian.T / 20)[-1],
        rtol=1e-9,
    )
    limit = np.linalg.eigvalsh(np.asarray(tw.kernels.two_layer(inputs.shape[1])(inputs).tangent))
    np.testing.assert_allclose(step, 20 / limit[-1], rtol=1e-6)

    def gradient(x):
        return jacobian.T @ (start + jacobian @ x - targets) / 20

    zero = np.zeros(jacobian.shape[1])
    for curve in group.curves:
        label = curve.run.method.label
        if label == "gradient descent":
            points = sgd_of_pytorch(zero, gradient, step, lambda _: 0.0, 14)
        else:
            points = nesterov(zero, gradient, step, float(label.split("= ")[1]), 14)
        losses = [np.mean((start + jacobian @ x - targets) ** 2) for x in points]
        chosen = [losses[epoch - 1] for epoch in curve.epochs]
        np.testing.assert_allclose(curve.predicted["start"], chosen, rtol=1e-8)


def test_wider_networks_are_nearer_to_their_limit(done):
    group = done[3]["theory", "nesterov-widths"]
    for curves in group.lines().values():
        assert [c.run.width for c in curves] == [20, 80, 320]
        assert all(set(c.gap) == {"start", "limit"} for c in curves)
    gaps = np.array([[c.gap["limit"] for c in cs] for cs in group.lines().values()])
    assert gaps.mean(axis=0)[2] < gaps.mean(axis=0)[0]


def test_the_form_of_pytorch_on_a_quadratic():
    curvatures = np.array([0.3, 2.0, 5.0])
    method = PyTorchNesterov(0.1, 3.0)
    points = sgd_of_pytorch(
        np.ones(3), lambda x: curvatures * x, 0.1, lambda k: (k - 1) / (k + 2), 40, nesterov=True
    )
    ran = [method.response(curvatures, k) for k in range(40)]
    np.testing.assert_allclose(ran, points, rtol=1e-12, atol=1e-15)
    state = np.ones(3), method.init(jnp.ones(3))
    for k in range(39):
        state = method.update(jnp.asarray(k), *state, lambda x: curvatures * x)
    np.testing.assert_allclose(state[0], points[-1], rtol=1e-12)
    # Not quite Nesterov's own.
    assert not np.allclose(points[-1], tw.Nesterov(0.1, 3.0).response(curvatures, 39), rtol=0.01)
    assert isinstance(method.limit(), tw.NesterovFlow)


def test_the_form_of_two_momenta_on_a_quadratic():
    curvatures = np.array([0.3, 2.0, 5.0])
    method = CascadedMomenta(0.1, 0.2, 0.5)
    points = two_momenta(np.ones(3), lambda x: curvatures * x, 0.1, 0.2, 0.5, 40)
    ran = [method.response(curvatures, k) for k in range(40)]
    np.testing.assert_allclose(ran, points, rtol=1e-12, atol=1e-15)
    for dtype, rtol in (("float32", 1e-4), ("float64", 1e-12)):
        curved = curvatures.astype(dtype)
        state = jnp.ones(3, dtype), method.init(jnp.ones(3, dtype))
        for k in range(39):
            state = method.update(jnp.asarray(k), *state, lambda x, curved=curved: curved * x)
        assert state[0].dtype == dtype
        np.testing.assert_allclose(state[0], points[-1], rtol=rtol, atol=rtol)
    # From the fourth step on the recursion, but from another start.
    plain = tw.HigherMomentum(0.1, 0.2, 0.5)
    assert not np.allclose(points[-1], plain.response(curvatures, 39), rtol=0.01)
    for ours, theirs in zip(
        method.recurrence(curvatures, 3), plain.recurrence(curvatures, 3), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)
    assert method.limit() == plain.limit()
    assert method.time_per_step == plain.time_per_step


def test_kernel_of_the_theorys_network_from_its_factors():
    network = tw.networks.two_layer(6, 11, key=jr.key(0))
    inputs = jr.normal(jr.key(1), (5, 2, 3))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, jnp.zeros(5))
    rows = jax.jacrev(objective.predictions)(network)
    jacobian = np.concatenate([np.asarray(r).reshape(5, -1) for r in jax.tree.leaves(rows)], axis=1)
    found = tw.kernels.empirical(objective, network).matrix("mean")
    np.testing.assert_allclose(found, jacobian @ jacobian.T, rtol=1e-12)


def test_saved_epochs():
    found = saved_epochs(5000)
    assert {1, 2, 100, 200, 500, 1000, 2000, 3000, 4000, 5000} <= set(found)
    assert np.all(np.diff(found) > 0)
    assert np.max(np.diff(found) / found[:-1]) <= 1
    assert np.max(np.diff(found)[found[:-1] > 50] / found[:-1][found[:-1] > 50]) < 0.05
    assert list(saved_epochs(1)) == [1]


def test_page_and_findings(done):
    _, page, found, groups = done
    text = page.read_text()
    for title in ("The published setting", "The theory", "Two momenta", "Heavy ball, by width"):
        assert title in text
    told = "\n".join(s.text for s in found)
    assert "what the kernel at the start says it is" in told
    assert "to the power" in told
    assert "times the largest that is stable" in told
    # Other images than the paper's are not held against its numbers.
    assert "published ones" not in told
    assert not any(c.of_the_paper for g in groups.values() for c in g.curves)


def test_comparison_with_the_paper(done):
    """As if the runs had been the paper's: its own losses agree with themselves."""
    _, _, _, groups = done
    group = groups["published", "nesterov-widths"]
    run = replace(group.curves[0].run, width=2000, epochs=200)

    def curve(loss, width):
        return replace(
            group.curves[0],
            run=replace(run, width=width),
            epochs=np.array([1, 200]),
            loss=np.array([30.0, loss]),
            of_the_paper=True,
        )

    row = BY_WIDTH["nesterov_2"]
    same = [curve(row[m][0], m) for m in (1000, 2000, 3000)]
    assert same[0].published(200) == row[1000]
    assert same[0].published(100) is None
    told = [s.text for s in findings([Group("nesterov-widths", group.setting, same)])]
    assert "1.00 times in the median of 3" in told[0] or "1.0 times in the median of 3" in told[0]
    assert "3 of 3 lie between those of the ten published starts" in told[0]
    assert "2000 (Nesterov, d = 2; published 2000)" in told[1]
    far = [curve(2 * row[m][0], m) for m in (1000, 2000, 3000)]
    sentence = findings([Group("nesterov-widths", group.setting, far)])[0]
    assert sentence.level == "notice"
    assert "0 of 3 lie between" in sentence.text
    assert len(BY_EPOCH["nesterov_8"]) == 8


def test_what_is_done_is_not_done_again(done):
    folder, page, found, _ = done
    store = folder / "out" / "study.zarr" / "theory"
    before = max(p.stat().st_mtime_ns for p in store.rglob("*"))
    again = paper.reproduce(folder / "images", folder / "out", **THEORY, protocols=PROTOCOLS)
    assert again == (page, found)
    assert max(p.stat().st_mtime_ns for p in store.rglob("*")) == before
    with pytest.raises(StoreError, match="of other data, seed"):
        paper.reproduce(folder / "images", folder / "out", protocols=PROTOCOLS, seed=2)
    # No state is kept of runs that are complete.
    assert not list((folder / "out" / "study.zarr" / "checkpoints").rglob("slot*"))


def test_an_interrupted_run_goes_on_to_the_same_losses(done, tmp_path):
    folder, _, _, groups = done

    class Interrupting:
        def __init__(self):
            self.left = 12

        def stage(self, title, total, of=""):
            return self

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def at(self, done):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    choice = {"experiments": ["higher-momentum"], "settings": ["published"]}
    with pytest.raises(KeyboardInterrupt):
        paper.reproduce(
            folder / "images", tmp_path, **choice, protocols=PROTOCOLS, progress=Interrupting()
        )
    paper.reproduce(folder / "images", tmp_path, **choice, protocols=PROTOCOLS)
    (key,) = read(tmp_path)
    for ours, theirs in zip(read(tmp_path)[key].curves, groups[key].curves, strict=True):
        np.testing.assert_array_equal(ours.loss, theirs.loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"experiments": ["heavy"]}, "did you mean 'heavy-ball'"),
        ({"experiments": []}, "at least one"),
        ({"settings": ["theories"]}, "did you mean 'theory'"),
        ({"protocols": None}, "holds 20 images"),
    ],
)
def test_mistakes(done, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        paper.reproduce(done[0] / "images", tmp_path, **{"protocols": PROTOCOLS, **wrong})
    assert not list(tmp_path.iterdir())


def test_epochs_must_be_positive():
    with pytest.raises(ValueError, match="epochs"):
        paper.Protocol(epochs=0)


def test_a_single_epoch(done, tmp_path):
    protocols = {"theory": replace(SMALL, epochs=1)}
    choice = {"experiments": ["heavy-ball"], "settings": ["theory"], "protocols": protocols}
    for _ in range(2):
        page, _ = paper.reproduce(done[0] / "images", tmp_path, **choice)
    assert "Heavy ball" in page.read_text()
