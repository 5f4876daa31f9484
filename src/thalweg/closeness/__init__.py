"""How far a run is from a flow: measured, predicted, and bounded with every hypothesis named."""

from ._certify import Certificate, certify
from ._certify_run import RunCertificate, certify_run
from ._compare import Comparison, compare
from ._distance_law import DistanceLaw, predicted_distance
from ._evidence import ClosedForm, Evidence, Hypothesis, Intervals
from ._largest_step import LargestStep, largest_step

__all__ = [
    "Certificate",
    "ClosedForm",
    "Comparison",
    "DistanceLaw",
    "Evidence",
    "Hypothesis",
    "Intervals",
    "LargestStep",
    "RunCertificate",
    "certify",
    "certify_run",
    "compare",
    "largest_step",
    "predicted_distance",
]
