"""What can be recorded along a trajectory.

An observable is a function `(objective, params) -> number, array or PyTree of arrays`. One that
gains from what it found at the saved time before (a warm start) has a memory instead: a method
`initial(objective, params) -> memory`, and a call `(objective, params, memory) -> (value, memory)`.
"""

from ._accuracy import accuracy as accuracy
from ._activation_flips import ActivationFlips as ActivationFlips
from ._named import OBSERVABLES as OBSERVABLES
from ._named import NamedObservable as NamedObservable
from ._norms import gradient_norm as gradient_norm
from ._norms import parameter_norm as parameter_norm
from ._observe import RememberingObservable as RememberingObservable
from ._observe import observe as observe
from ._sliding_pairs import SlidingPairs as SlidingPairs

__all__ = [
    "OBSERVABLES",
    "ActivationFlips",
    "NamedObservable",
    "RememberingObservable",
    "SlidingPairs",
    "accuracy",
    "gradient_norm",
    "observe",
    "parameter_norm",
]
