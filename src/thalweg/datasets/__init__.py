"""Data: embedded digits, folders of IDX files, openml by name, Gaussian student-teacher data."""

from ._dataset import Dataset
from ._digits import digits
from ._gaussian_teacher import gaussian_teacher
from ._idx import idx
from ._openml import openml

__all__ = [
    "Dataset",
    "digits",
    "gaussian_teacher",
    "idx",
    "openml",
]
