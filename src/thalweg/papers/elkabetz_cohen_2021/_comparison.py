"""What the paper compares, from a finished study: gradient descent with different steps."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...study.store import STORE_NAME, Store
from ._published import SAMPLES, STEP_SIZE
from ._sides import Parting

# A quotient of distances agrees with theory to this part of what it should be beyond 1: what is
# beyond 1 tells first order from distances that do not depend on the smaller step at all.
_AGREES = 0.25
FLOW = 0


@dataclass(frozen=True)
class Comparison:
    """One network in one precision: the run with the largest step, eta, beside all others.

    `own_flow`: whether the flow is of the same precision; that of float64 is taken where there is
    one. `published_protocol`: whether step size and number of samples are the paper's. The rest at
    the saved iterations of the run with step eta: `loss` by ratio r (step eta / r); `distance[r]`,
    Euclidean over all weights, between steps eta and eta / r; `distance[FLOW]` to the flow, known
    up to `flow_error`; `proxy[r]`, between step eta / r and the flow; `predicted`, of
    `distance[FLOW]` by the first-order law, where the network is smooth; `flips[r]`, `apart[r]` and
    `parting[r]`, where it has kinks: see `_sides`.
    """

    network: str
    precision: str
    own_flow: bool
    published_protocol: bool
    iterations: np.ndarray
    loss: dict[int, np.ndarray]
    flow_loss: np.ndarray
    travelled: np.ndarray
    distance: dict[int, np.ndarray]
    proxy: dict[int, np.ndarray]
    flow_error: np.ndarray
    predicted: np.ndarray | None
    flips: dict[int, np.ndarray]
    apart: dict[int, np.ndarray]
    parting: dict[int, Parting | None]
    gradients: dict[int, int]
    flow_error_gradients: int

    @cached_property
    def ratios(self) -> list[int]:
        """The divisors of the step size, and last the flow."""
        return [*sorted(r for r in self.distance if r != FLOW), FLOW]

    def quotient(self, ratio: int) -> np.ndarray:
        """The distance to step eta / r over that to the first of the smaller steps."""
        first = self.distance[self.ratios[0]]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(first > 0, self.distance[ratio] / first, np.nan)

    def in_theory(self, ratio: int) -> float:
        """What that quotient is for distances of first order in the step."""
        return shortening(ratio) / shortening(self.ratios[0])

    @property
    def of_first_order(self) -> bool | None:
        """Whether all quotients at the end are those of theory; `None` where none can tell."""
        found = [self._agrees(r) for r in self.ratios[1:]]
        return None if all(f is None for f in found) else False not in found

    def _agrees(self, ratio: int) -> bool | None:
        """One quotient; `None` if the distances vanish or the flow's error is too large."""
        first = float(self.distance[self.ratios[0]][-1])
        room = _AGREES * (self.in_theory(ratio) - 1)
        if first == 0 or (ratio == FLOW and self.flow_error[-1] > room * first):
            return None
        return abs(float(self.quotient(ratio)[-1]) - self.in_theory(ratio)) <= room

    @property
    def torn(self) -> bool:
        """Whether runs ever were on different sides of a kink."""
        return any(bool(np.any(count > 0)) for count in self.apart.values())


def shortening(ratio: int) -> float:
    """`1 - 1/r`, to which the distance between steps eta and eta / r is in proportion; 1 to the
    flow."""
    return 1.0 if ratio == FLOW else 1 - 1 / ratio


def read_comparisons(directory: Path, networks: Iterable[str]) -> list[Comparison]:
    """All finished studies of a reproduction, in the order of the networks, float64 first."""
    found = []
    for network, precision in itertools.product(networks, ("float64", "float32")):
        store = _complete(directory / f"{network}-{precision}")
        if store is not None:
            exact = _complete(directory / f"{network}-float64") or store
            found.append(_read(store, exact, network, precision))
    return found


def _complete(place: Path) -> Store | None:
    if not (place / STORE_NAME).exists():
        return None
    store = Store.open(place)
    return store if store.complete("sides") else None


def _read(store: Store, exact: Store, network: str, precision: str) -> Comparison:
    """From the runs of one study, and the flow of another: the flow is meant that is true."""
    weights = _weights(store)
    names = {int(n.split("-")[1]): n for n in store.members("optimizers")}
    rows = min(int(store.attribute(f"optimizers/{n}", "rows")) for n in names.values())
    points = {r: store.read(f"optimizers/{n}", "params")[:rows] for r, n in names.items()}
    points = {r: np.asarray(p[:, weights], float) for r, p in sorted(points.items())}
    flow = np.asarray(exact.read("flows/gradient_flow", "params")[:rows, weights], float)

    def apart(a, b):
        return np.linalg.norm(a - b, axis=1)

    ours, smaller = points[1], [r for r in points if r != 1]
    sides = {r: f"sides/{n}" for r, n in names.items() if store.has(f"sides/{n}")}
    law = "comparisons/eta-1" if store.has("laws/eta-1") else None
    return Comparison(
        network=network,
        precision=precision,
        own_flow=exact.directory == store.directory,
        published_protocol=store.attribute("optimizers/eta-1", "step_size") == STEP_SIZE
        and store.attributes["samples"] == SAMPLES,
        iterations=store.read("optimizers/eta-1", "step")[:rows],
        loss={r: store.read(f"optimizers/{n}", "loss")[:rows] for r, n in names.items()},
        flow_loss=exact.read("flows/gradient_flow", "loss")[:rows],
        travelled=apart(ours, ours[:1]),
        distance={r: apart(ours, points[r]) for r in smaller} | {FLOW: apart(ours, flow)},
        proxy={r: apart(points[r], flow) for r in smaller},
        flow_error=exact.read("flows/gradient_flow", "error")[:rows],
        predicted=store.read(law, "predicted")[:rows] if law else None,
        flips={r: store.read(path, "flips")[:rows] for r, path in sides.items()},
        apart={r: store.read(path, "apart")[:rows] for r, path in sides.items() if r != 1},
        parting={r: _parting(store, path) for r, path in sides.items() if r != 1},
        gradients={
            FLOW: int(exact.attribute("flows/gradient_flow", "gradients")),
            **{r: int(store.attribute(f"optimizers/{n}", "gradients")) for r, n in names.items()},
        },
        flow_error_gradients=int(exact.attribute("flows/gradient_flow", "error_gradients")),
    )


def _weights(store: Store) -> np.ndarray:
    """Which parameters are weights: the paper leaves biases out of its distances."""
    layout = json.loads(store.attributes["parameter_layout"])
    return np.concatenate(
        [np.full(int(np.prod(e["shape"])), not e["leaf"].endswith("bias")) for e in layout]
    )


def _parting(store: Store, path: str) -> Parting | None:
    found = json.loads(store.attribute(path, "parting"))
    return Parting(**found) if found else None
