"""Which runs the experiments take."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ._methods import Damping, Method, Momentum, TwoMomenta
from ._settings import Setting

# Later saved epochs are this part of themselves apart, and some are saved at any rate.
_SPACING = 0.04
_ANYWAY = (100, 200, 500)


@dataclass(frozen=True)
class Experiment:
    """Methods that are compared, by epoch or, where `widths` names widths of a protocol, by width.

    A run is known by its path in the store, under which experiments share it. `logarithmic`:
    whether the paper draws the epochs so.
    """

    title: str
    methods: tuple[Method, ...]
    widths: str | None = None
    logarithmic: bool = False

    def runs(self, setting: Setting) -> "Iterator[Run]":
        """What it takes in a setting."""
        protocol = setting.protocol
        if self.widths is None:
            for method in self.methods:
                yield Run(setting, "epochs", protocol.width, method, protocol.epochs)
        else:
            for width in getattr(protocol, self.widths):
                for method in self.methods:
                    yield Run(setting, "widths", width, method, protocol.widths_epochs)


@dataclass(frozen=True)
class Run:
    """One network trained by one method."""

    setting: Setting
    kind: str
    width: int
    method: Method
    epochs: int

    @property
    def path(self) -> str:
        """In the store."""
        return f"{self.setting.name}/{self.kind}/{self.width}/{self.method.key}"

    @property
    def save_steps(self) -> np.ndarray:
        """An epoch's loss is the one that its step starts from, so that epoch 1 is step 0."""
        return saved_epochs(self.epochs) - 1


EXPERIMENTS = {
    "heavy-ball": Experiment("Heavy ball", tuple(Momentum(b) for b in (0, 0.2, 0.5, 0.8))),
    "nesterov": Experiment(
        "Nesterov's method",
        (Momentum(0), *(Damping(d) for d in (2, 3, 6, 8))),
        logarithmic=True,
    ),
    "higher-momentum": Experiment(
        "Two momenta", (Momentum(0.2), TwoMomenta(0.2, 0.2), TwoMomenta(0.2, 0.5))
    ),
    "heavy-ball-widths": Experiment(
        "Heavy ball, by width", tuple(Momentum(b) for b in (0, 0.6, 0.9)), "heavy_ball_widths"
    ),
    "nesterov-widths": Experiment(
        "Nesterov's method, by width", tuple(Damping(d) for d in (2, 4, 10)), "nesterov_widths"
    ),
}


def saved_epochs(last: int) -> np.ndarray:
    """The first ones all, then ever fewer."""
    found = {last, *(e for e in _ANYWAY if e < last), *range(1000, last, 1000)}
    epoch = 1
    while epoch < last:
        found.add(epoch)
        epoch += max(1, round(_SPACING * epoch))
    return np.array(sorted(found))
