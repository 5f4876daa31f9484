"""How far a run is from a flow."""

from ._compare import Comparison as Comparison
from ._compare import compare as compare
