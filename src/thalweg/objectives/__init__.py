"""Landscapes: functions of the parameters, with or without data."""

from ._abstract import AbstractObjective as AbstractObjective
from ._abstract import Kinks as Kinks
from ._abstract import Segment as Segment
from ._function import FunctionObjective as FunctionObjective
from ._needs import check_objective as check_objective
from ._objective import Objective as Objective
from ._penalised import AbstractPenalty as AbstractPenalty
from ._penalised import Penalised as Penalised
from ._penalised import WeightDecay as WeightDecay
from ._penalised import parted as parted
from ._reductions import AbstractReduction as AbstractReduction
from ._reductions import AllAtOnce as AllAtOnce
from ._reductions import MicroBatches as MicroBatches
from ._reductions import Sharded as Sharded
from ._supervised import AbstractSupervised as AbstractSupervised
from ._supervised import supervised as supervised

__all__ = [
    "AbstractObjective",
    "AbstractPenalty",
    "AbstractReduction",
    "AbstractSupervised",
    "AllAtOnce",
    "FunctionObjective",
    "MicroBatches",
    "Objective",
    "Penalised",
    "Sharded",
    "WeightDecay",
]
