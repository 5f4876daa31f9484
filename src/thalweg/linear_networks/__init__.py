"""Deep linear networks: their exact flow, balanced layers, the flow of their product."""

from ._balanced import balanced, end_to_end, imbalance
from ._end_to_end_flow import EndToEndFlow
from ._exact_flow import exact_flow
from ._guarantee import Guarantee, sufficient_steps, sufficient_time
from ._target import target_of

__all__ = [
    "EndToEndFlow",
    "Guarantee",
    "balanced",
    "end_to_end",
    "exact_flow",
    "imbalance",
    "sufficient_steps",
    "sufficient_time",
    "target_of",
]
