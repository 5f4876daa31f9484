"""How far a run is from a flow."""

from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._first_order import FirstOrderLaw as FirstOrderLaw
from ._first_order import predicted_distance as predicted_distance
from ._largest_step import LargestStep as LargestStep
from ._largest_step import largest_step as largest_step
