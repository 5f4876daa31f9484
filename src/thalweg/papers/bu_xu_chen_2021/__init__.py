"""Bu, Xu and Chen, "A Dynamical View on Optimization Algorithms of Overparameterized Neural
Networks" (2021)."""

from ._experiment import reproduce as reproduce
from ._plan import EXPERIMENTS as EXPERIMENTS
from ._settings import SETTINGS as SETTINGS
from ._settings import Protocol as Protocol
