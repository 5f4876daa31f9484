"""How far a run is from a flow."""

from ._certify import Certificate as Certificate
from ._certify import certify as certify
from ._certify_run import RunCertificate as RunCertificate
from ._certify_run import certify_run as certify_run
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._distance_law import DistanceLaw as DistanceLaw
from ._distance_law import predicted_distance as predicted_distance
from ._evidence import ClosedForm as ClosedForm
from ._evidence import Evidence as Evidence
from ._evidence import Hypothesis as Hypothesis
from ._evidence import Intervals as Intervals
from ._largest_step import LargestStep as LargestStep
from ._largest_step import largest_step as largest_step
