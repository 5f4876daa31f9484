"""Data: embedded digits, folders of IDX files, openml by name, Gaussian student-teacher data."""

from ._dataset import Dataset
from ._digits import DigitsSection, digits
from ._gaussian_teacher import GaussianSection, gaussian_teacher
from ._idx import IdxSection, idx
from ._openml import OpenMLSection, openml
from ._section import DataSection, DataShape

__all__ = [
    "DataSection",
    "DataShape",
    "Dataset",
    "DigitsSection",
    "GaussianSection",
    "IdxSection",
    "OpenMLSection",
    "digits",
    "gaussian_teacher",
    "idx",
    "openml",
]
