"""Declared experiments: a TOML file in, results on disk and a report out."""

from ._errors import SpecError as SpecError
from ._errors import StoreError as StoreError
from .declare import Declaration as Declaration
from .declare import load_spec as load_spec
from .declare import parse_spec as parse_spec
from .run import resume as resume
from .run import run_declared as run_declared
from .run import run_study as run_study
from .spec import LossSection as LossSection
from .spec import Spec as Spec
from .spec import StudySection as StudySection
from .stages.curvature import CurvatureSection as CurvatureSection
from .stages.flows import FlowsSection as FlowsSection
from .stages.kernel import KernelSection as KernelSection
from .stages.laws import ClosenessSection as ClosenessSection
from .stages.observables import ObservablesSection as ObservablesSection
