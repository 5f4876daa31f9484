"""Published experiments that can be carried out again."""

from . import elkabetz_cohen_2021 as elkabetz_cohen_2021
