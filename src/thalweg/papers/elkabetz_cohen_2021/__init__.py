"""Elkabetz and Cohen, "Continuous vs. Discrete Optimization of Deep Neural Networks" (2021)."""

from ._experiment import NETWORKS as NETWORKS
from ._experiment import PRECISIONS as PRECISIONS
from ._experiment import PUBLISHED_PROTOCOL as PUBLISHED_PROTOCOL
from ._experiment import RATIOS as RATIOS
from ._experiment import Protocol as Protocol
from ._experiment import reproduce as reproduce
