"""Data: embedded digits, folders of IDX files, openml by name, Gaussian student-teacher data."""

from ._dataset import Dataset as Dataset
from ._digits import digits as digits
from ._gaussian_teacher import gaussian_teacher as gaussian_teacher
from ._idx import idx as idx
from ._openml import openml as openml
