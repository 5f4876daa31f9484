"""Where flows that pass saddles are said to have arrived, beside where they go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from tests.problems import landscape


def bends(p, rows):
    """x^2/2 + c_2 y^2/2 + c_3 y^3/3 + c_4 y^4/4, turned by an angle, with units of its own."""

    def value(row):
        turn, unit, length, c = row[:2], row[2], row[3], row[4:]
        x = (turn[0] * p[0] + turn[1] * p[1]) / length
        y = (turn[0] * p[1] - turn[1] * p[0]) / length
        return unit * (x**2 / 2 + jnp.sum(c * jnp.stack([y**2 / 2, y**3 / 3, y**4 / 4])))

    return jax.vmap(value)(rows)


def outputs(z, y):
    return z


def followed(c, y, tolerance, angle=0.0, unit=1.0, length=1.0, dtype=np.float64, **options):
    """The flow from (1, y) in the landscape's own coordinates, and its end in them."""
    turn = np.array([np.cos(angle), np.sin(angle)])
    back = np.array([[turn[0], -turn[1]], [turn[1], turn[0]]])
    row = np.concatenate([turn, [unit, length], c])
    flow = tw.integrate(
        tw.GradientFlow(),
        tw.Objective(bends, outputs, np.asarray([row], dtype), np.zeros(1, dtype)),
        jnp.asarray(length * back @ [1.0, y], dtype),
        until=tw.until.gradient_norm(tolerance * unit / length),
        **options,
    )
    return flow, back.T @ np.asarray(flow.params[-1], float) / length


def saddle(k):
    """-y^2/2 + y^4/4, times k: the flow goes to the sign of y, with exp(2 k t) growing first."""
    return [-k, 0.0, k]


# For each: the bends, y, the tolerance, angle and units, whether the limit is found, and its y.
PASSED = {
    "slow": (saddle(1e-6), 1e-3, 1e-6, {}, False, 1),
    "at the tolerance": (saddle(1e-2), 0.1, 1e-4, {}, True, 1),
    "hardly off": (saddle(0.1), 1e-9, 1e-4, {}, False, 1),
    "below the error": (saddle(0.1), -1e-9, 1e-6, {}, False, -1),
    "turned": (saddle(1e-4), -1e-3, 1e-4, {"angle": 0.3}, False, -1),
    "turned and followed": (saddle(1e-2), -1e-3, 1e-6, {"angle": 0.3}, True, -1),
    "turned, up to rounding": (saddle(1e-3), 0.0, 1e-6, {"angle": 0.3}, False, 0),
    "small values": (saddle(1e-4), 1e-5, 1e-5, {"angle": 0.3, "unit": 1e-10}, False, 1),
    "large values": (saddle(1e-4), 1e-5, 1e-5, {"angle": 0.3, "unit": 1e10}, False, 1),
    "small parameters": (saddle(1e-4), 1e-5, 1e-5, {"angle": 0.3, "length": 1e-10}, False, 1),
    "large parameters": (saddle(1e-4), 1e-5, 1e-5, {"angle": 0.3, "length": 1e10}, False, 1),
    "no curvature": ([0, 0, -1e-2], 1e-3, 1e-6, {}, False, np.inf),
    "a slow minimum": ([1e-9, 0, 0], 1.0, 1e-6, {}, False, 0),
    "a slow minimum, nearly reached": ([1e-3, 0, 0], 1e-3, 1e-4, {}, True, 0),
    "a valley": ([0, 0, 0], 0.5, 1e-6, {}, True, 0.5),
    "a valley, turned": ([0, 0, 0], 0.5, 1e-6, {"angle": 0.3}, True, 0.5),
    "a start on the way into the saddle": (saddle(0.1), 0.0, 1e-6, {}, True, 0),
}


@pytest.mark.parametrize("case", PASSED)
def test_an_arrival_is_the_limit(case):
    c, y, tolerance, options, found, end = PASSED[case]
    flow, (x, last) = followed(c, y, tolerance, **options)
    limit, error = flow.limit, flow.error[-1] / options.get("length", 1.0)
    assert limit.found is found, flow.status.message
    if found:
        assert np.hypot(x, last - end) <= error + 1e-15
        assert error < 1e-3
        assert limit.index == (end == 0 and c[0] < 0)
    elif end in (-1, 1):
        assert limit.index == 1
        assert "leaves" in flow.status.message
        component = limit.component / options.get("length", 1.0)
        np.testing.assert_allclose(component, abs(last), rtol=1e-4)
    if case == "a start on the way into the saddle":
        assert "symmetry" in flow.status.message


def test_what_is_said_of_a_saddle_that_is_passed():
    """How fast the flow leaves it, how long that takes, and which tolerance follows it."""
    k, y = 1e-3, 1e-4
    flow, _ = followed(saddle(k), y, 1e-5)
    said = flow.status.message
    time = float(said.split("a time of about ")[1].split()[0].rstrip("."))
    # From y to about 1, at the rate k.
    assert abs(time / (np.log(1 / y) / k) - 1) < 0.1
    assert "curves down by 0.001," in said
    tolerance = float(said.split("`gradient_norm(")[1].split(")")[0])
    further, (_, end) = followed(saddle(k), y, tolerance)
    assert further.limit.found
    assert abs(end - 1) <= further.error[-1]


@pytest.mark.parametrize("y", [1e-5, -1e-9])
def test_a_side_that_the_error_decides(y):
    """Past the saddle within its error, a flow may be on the wrong side."""
    flow, (_, end) = followed(saddle(0.1), y, 1e-12, angle=0.3)
    sure = abs(y) > 1e-6
    assert flow.limit.found
    assert flow.status.kind == ("completed" if sure else "uncontrolled")
    assert abs(end - np.sign(y)) <= flow.error[-1]
    assert np.isfinite(flow.error[-1]) == sure
    assert ("the error is unknown" in flow.status.message) != sure
    assert ("Use a smaller `rtol`." in flow.status.message) != sure


@pytest.mark.parametrize("y", [1e-2, -1e-4])
def test_single_precision(y):
    flow, (_, last) = followed(saddle(1e-3), y, 1e-4, angle=0.3, dtype=np.float32)
    assert not flow.limit.found
    assert "leaves" in flow.status.message
    np.testing.assert_allclose(flow.limit.component, abs(last), rtol=1e-2)


def test_a_slow_flow_is_not_at_rest():
    """It moves by less than a rounding from look to look, and its gradient is exact."""
    flow, _ = followed(saddle(1e-16), 0.5, 1e-18, t1=1e3)
    assert "not to the tolerance" in flow.status.message


def test_a_network_that_goes_from_saddle_to_saddle():
    """Two layers, modes 1 and 0.1: with the first one learnt, the flow passes another saddle."""

    def residuals(p, rows):
        return jax.vmap(lambda row: jnp.sum((p[1] @ p[0] - row.reshape(2, 2)) ** 2) / 2)(rows)

    modes, start = np.array([1.0, 0.1]), 1e-4
    left, right = (np.linalg.qr(m)[0] for m in np.random.default_rng(0).normal(size=(2, 2, 2)))
    network = tw.Objective(residuals, outputs, [(left * modes @ right.T).ravel()], [0.0])
    weights = [jnp.asarray(start * right.T), jnp.asarray(start * left)]
    passed, arrived = (
        tw.integrate(tw.GradientFlow(), network, weights, until=tw.until.gradient_norm(tolerance))
        for tolerance in (1e-4, 1e-8)
    )
    assert not passed.limit.found
    assert arrived.limit.found
    assert arrived.limit.index == 0
    # Balanced weights stay so: both layers are roots of the modes.
    ends = np.sqrt(modes)[:, None] * right.T, left * np.sqrt(modes)
    apart = [np.linalg.norm(p[-1] - end) for p, end in zip(arrived.params, ends, strict=True)]
    assert np.linalg.norm(apart) <= arrived.error[-1] < 1e-2


def well(p):
    return jnp.sum((p**2 - 1) ** 2) / 2


def two_weights(p):
    return (p[0] * p[1] - 1) ** 2 / 2


def turned(p):
    """A double well along the diagonal, and a valley across it."""
    along, across = p[0] + p[1], p[0] - p[1]
    return (along**2 - 1) ** 2 / 2 + across**2


@pytest.mark.parametrize(
    ("value", "start", "tolerance"),
    [
        (well, [1e-3], 1e-2),
        (well, [1e-6], 1e-4),
        (well, [-1e-2], 1e-1),
        (two_weights, [1e-3, 1e-3], 1e-2),
        (two_weights, [1e-3, 0.9e-3], 1e-2),
        (two_weights, [1e-3, 0.5e-3], 1e-2),
        (turned, [5e-4, 5e-4], 1e-2),
        (turned, [5e-4, 5.1e-4], 1e-4),
    ],
)
def test_a_flow_that_leaves_a_saddle_along_one_line_has_not_arrived(value, start, tolerance):
    """All the gradient that it has is along the direction in which the landscape curves down."""
    ending = tw.until.gradient_norm(tolerance)
    left = tw.integrate(tw.GradientFlow(), landscape(value), jnp.array(start), until=ending)
    assert not left.limit.found or float(value(left.params[-1])) < 1e-6
    if not left.limit.found:
        assert left.limit.index == 1
        assert "leaves" in left.status.message or "goes on" in left.status.message
