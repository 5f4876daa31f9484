"""Declared experiments: a TOML file in, results on disk and a report out."""

from ._errors import SpecError as SpecError
from ._errors import StoreError as StoreError
from .run import resume as resume
from .run import run_study as run_study
from .run import run_text as run_text
from .spec import Spec as Spec
from .spec import load_spec as load_spec
from .spec import parse_spec as parse_spec
