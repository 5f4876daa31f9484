"""Published experiments that can be carried out again."""

from . import bu_xu_chen_2021 as bu_xu_chen_2021
from . import elkabetz_cohen_2021 as elkabetz_cohen_2021
