"""The exact gradient flow of a deep linear network with one output and whitened data.

With `s = |w|`, `nu` the cosine of the angle between `w` and the target, `Lam = |target|` and the
clock `d tau = s^(1 - 2/n) dt`, the flow separates (Elkabetz and Cohen 2021 study the same one):

    d nu / d tau = Lam (1 - nu^2),        so  nu = tanh(Lam tau + c),
    d s / d tau  = n s (Lam nu - s),      a Bernoulli equation for s,

and what is left is one integral, `t = int s^-(1 - 2/n) d tau`. Its integrand is analytic and varies
on the scale `1 / (n max(Lam, s))`, so that Gauss-Legendre panels of half that width give all
digits.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from .._checks import check_positive_integer

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
# Of 1 / (n Lam); and by how much panels grow from one to the next while s is still larger.
_PANEL, _GROWTH = 0.5, 1.5
# Panels laid at once. Beyond the last one norm and angle are at their limits in all digits.
_STRETCH, _END = 64, 40.0
# A direction this near the target's line is on it: the rest is rounding.
_COLLINEAR = 4 * np.finfo(float).eps
_NEWTON_STEPS = 50


def exact_flow(
    depth: int, target: Any, initial: Any, times: Any
) -> Float[np.ndarray, "times inputs"]:
    """The end-to-end vector of a balanced deep linear network along gradient flow, in closed form.

        w = tw.linear_networks.exact_flow(3, target, initial, times)

    The network `x -> W_n ... W_1 x` has one output; the loss is `1/2 |w - target|^2`, up to a
    constant that of squared error on whitened inputs, with `w` the only row of `W_n ... W_1`.
    The layers are balanced at the start, `W_{j+1}^T W_{j+1} = W_j W_j^T`, and so for ever.

    **Arguments:**

    - `depth`: the number of layers, n >= 1.
    - `target`: shape `(inputs,)`, `1/N sum_i y_i x_i` for whitened inputs.
    - `initial`: shape `(inputs,)`, `w` at time 0.
    - `times`: shape `(times,)`, in any order, none of them negative.

    **Returns:** `w` at each time, in float64; about 13 digits are right.

    **Raises:** ValueError for a depth below 1, shapes that do not fit, numbers that are not finite,
    and negative times.

    ??? cite "Reference"

        Arora, Cohen and Hazan, "On the optimization of deep networks: implicit acceleration by
        overparameterization", International Conference on Machine Learning, 2018 (the end-to-end
        dynamics). Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural
        networks", Advances in Neural Information Processing Systems, 2021 (this flow).
    """
    target, initial, times = _checked(depth, target, initial, times)
    size = _length(target)
    if depth == 1:
        return target + np.exp(-times)[:, None] * (initial - target)
    start = _length(initial)
    if start == 0:
        return np.zeros((len(times), len(initial)))
    if size == 0:
        # s' = -n s^(3 - 2/n)
        power = 2 - 2 / depth
        return initial * ((1 + depth * power * start**power * times) ** (-1 / power))[:, None]
    along, across, direction = _plane(target / size, initial)
    phase = _Collinear(depth, size, along) if across == 0 else _Oblique(depth, size, along, across)
    tau = _clock(phase, times)
    norm, cosine, sine = phase.norm(tau), *phase.angle(tau)
    return norm[:, None] * (cosine[:, None] * target / size + sine[:, None] * direction)


class _Oblique:
    """Norm and angle at the clock `tau`, for a start that is not on the target's line."""

    def __init__(self, depth, size, along, across):
        self.depth, self.size = depth, size
        self.start = np.hypot(along, across)
        # artanh of the cosine, without its loss of digits near the line.
        self.shift = np.arcsinh(along / across)

    def angle(self, tau):
        x = self.size * tau + self.shift
        return np.tanh(x), _sech(x)

    def norm(self, tau):
        # The Bernoulli equation is linear in 1/s. Its solution is written with ratios of powers of
        # cosh, which do not overflow.
        x = self.size * tau + self.shift
        shrink = np.exp(self.depth * (_log_cosh(self.shift) - _log_cosh(x)))
        now, begin = (_power_integral(self.depth, y) for y in (x, np.asarray(self.shift)))
        whole = now - shrink * begin
        # Early on that is the difference of nearly equal numbers.
        early = self.depth * self.size * tau < 1
        whole[early] = self._integral(tau[early])
        return 1 / (shrink / self.start + self.depth * whole / self.size)

    def _integral(self, tau):
        """`int cosh(y)^n / cosh(x)^n dy` from the start to x, for short times."""
        half = self.size * tau / 2
        nodes = self.shift + half[:, None] * (1 + _NODES)
        last = _log_cosh(self.shift + 2 * half)[:, None]
        return half * (np.exp(self.depth * (_log_cosh(nodes) - last)) @ _WEIGHTS)

    @property
    def end(self):
        """From where on norm and angle have reached their limits."""
        growth = max(np.log(self.size / self.start), 0.0) / self.depth
        return (_END / 2 + 2 * max(-self.shift, 0.0) + growth) / self.size


class _Collinear:
    """The same on the target's line, towards the target or away from it."""

    def __init__(self, depth, size, along):
        self.depth, self.size, self.side = depth, size, np.sign(along)
        self.start = abs(along)

    def angle(self, tau):
        return np.full_like(tau, self.side), np.zeros_like(tau)

    def norm(self, tau):
        x = self.side * self.depth * self.size * tau
        # Away from the target both exponentials leave the range of numbers, and the norm is 0.
        with np.errstate(over="ignore"):
            return 1 / (np.exp(-x) / self.start - self.side * np.expm1(-x) / self.size)

    @property
    def end(self):
        """From where on the norm has reached its limit; away from the target it has none."""
        if self.side < 0:
            return np.inf
        return (_END + max(np.log(self.size / self.start), 0.0)) / (self.depth * self.size)


def _log_cosh(x):
    return np.logaddexp(x, -x) - np.log(2)


def _sech(x):
    return np.exp(-_log_cosh(x))


def _power_integral(n, x):
    """`int_0^x cosh^n / cosh(x)^n`, by the reduction formula."""
    tanh, sech = np.tanh(x), _sech(x)
    value = x if n % 2 == 0 else tanh
    for k in range(2 + n % 2, n + 1, 2):
        value = tanh / k + (k - 1) / k * sech**2 * value
    return value


def _clock(phase, times):
    """`tau` at every time: the inverse of `t(tau)`."""
    power = 1 - 2 / phase.depth
    if power == 0:
        return times
    width = _PANEL / (phase.depth * phase.size)

    def rate(tau):
        # Away from the target the norm comes to zero within the range of numbers.
        with np.errstate(divide="ignore"):
            return phase.norm(tau.ravel()).reshape(tau.shape) ** -power

    def elapsed(left, right):
        half = (right - left) / 2
        nodes = (left + half)[:, None] + half[:, None] * _NODES
        return half * (rate(nodes) @ _WEIGHTS)

    # While s is longer than the target it falls like 1 / (1 / start + n tau).
    larger = np.arange(1 + max(np.log(phase.start / phase.size), 0) / np.log(_GROWTH))
    edges = (_GROWTH**larger - 1) / (phase.depth * phase.start)
    reached = np.concatenate([[0.0], np.cumsum(elapsed(edges[:-1], edges[1:]))])
    while reached[-1] < times.max() and edges[-1] < phase.end:
        more = edges[-1] + width * np.arange(1, _STRETCH + 1)
        left = np.concatenate([edges[-1:], more[:-1]])
        with np.errstate(over="ignore"):
            reached = np.concatenate([reached, reached[-1] + np.cumsum(elapsed(left, more))])
        edges = np.concatenate([edges, more])
    place = np.clip(np.searchsorted(reached, times, side="right") - 1, 0, len(edges) - 1)
    left, base = edges[place], reached[place]
    # Beyond the last panel the rate is constant: Newton's method is exact at once.
    last = place == len(edges) - 1
    tau = left + (times - base) / rate(left)
    right = np.where(last, np.inf, edges[np.minimum(place + 1, len(edges) - 1)])
    for _ in range(_NEWTON_STEPS):
        tau = np.clip(tau, left, right)
        with np.errstate(invalid="ignore"):
            step = np.where(last, 0.0, (base + elapsed(left, tau) - times) / rate(tau))
        tau = tau - step
        if np.all(np.abs(step) <= 1e-15 * np.abs(tau)):
            break
    # Away from the target the norm leaves the range of numbers: it has come to zero.
    tau = np.where(np.isnan(tau) & ~np.isfinite(phase.end), np.inf, tau)
    return np.clip(tau, left, right)


def _length(vector):
    """The Euclidean norm, also where squares leave the range of numbers."""
    largest = float(np.max(np.abs(vector)))
    return largest * float(np.linalg.norm(vector / largest)) if largest > 0 else 0.0


def _plane(line, initial):
    """Components of the start along the target and across it, and the unit vector across."""
    along = float(line @ initial)
    rest = initial - along * line
    rest = rest - (line @ rest) * line
    across = _length(rest)
    if across <= _COLLINEAR * _length(initial):
        return along, 0.0, np.zeros_like(line)
    return along, across, rest / across


def _checked(depth, target, initial, times):
    check_positive_integer(depth, "depth")
    arrays = {}
    for field, given in (("target", target), ("initial", initial), ("times", times)):
        array = np.asarray(given, float)
        if array.ndim != 1 or array.size == 0:
            row = "; of the matrix of one output, take its row `[0]`" if array.ndim == 2 else ""
            raise ValueError(f"{field}: expected shape (n,), got {array.shape}{row}.")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{field}: contains NaN or infinity.")
        arrays[field] = array
    if arrays["target"].shape != arrays["initial"].shape:
        raise ValueError(
            f"initial: shape {arrays['initial'].shape} does not fit target,"
            f" {arrays['target'].shape}."
        )
    if np.any(arrays["times"] < 0):
        raise ValueError("times: must not be negative.")
    return arrays["target"], arrays["initial"], arrays["times"]
