"""The parts of a study, one per file, in the order in which they are carried out."""

from ._stage import Spent as Spent
from ._stage import Stage as Stage
from .certificates import Certificates
from .comparisons import Comparisons
from .curvature import Curvature
from .flows import Flows
from .kernel import Kernel
from .laws import Laws
from .observables import Observables
from .optimizers import Optimizers

STAGES: tuple[Stage, ...] = (
    Flows(),
    Optimizers(),
    Observables(),
    Laws(),
    Comparisons(),
    Certificates(),
    Kernel(),
    Curvature(),
)
