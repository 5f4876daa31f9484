"""How far a run is from a flow."""

from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._first_order import FirstOrderLaw as FirstOrderLaw
from ._first_order import predicted_distance as predicted_distance
