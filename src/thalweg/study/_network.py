"""The network that a section declares."""

import math
from typing import Any

from jaxtyping import PyTree

from .. import networks


def make_network(section: Any, sample: tuple[int, ...], outputs: int, key: Any) -> PyTree:
    """Draw the network for samples of a shape.

    **Raises:** what the network's function raises; ValueError for samples that are no square
    images, for a convolutional network.
    """
    features = math.prod(sample)
    if section.kind == "fully_connected":
        return networks.fully_connected(
            [features, *section.widths, outputs],
            activation=section.activation,
            bias=section.bias,
            init=section.init,
            key=key,
        )
    side = math.isqrt(features)
    if side**2 != features:
        raise ValueError(
            f"kind: {section.kind} needs square images, but samples have {features} numbers."
        )
    return getattr(networks, section.kind)(
        side=side,
        outputs=outputs,
        channels=section.channels,
        widths=section.widths,
        activation=section.activation,
        key=key,
    )
