"""Refusing an objective without what is needed, in a sentence that says who has it."""

from types import FunctionType
from typing import Any, TypeVar, cast

from .._checks import check_instance
from ._abstract import AbstractObjective
from ._objective import Objective
from ._supervised import AbstractSupervised, supervised

_Kind = TypeVar("_Kind", bound=AbstractObjective)

# What a kind of objective has that the others have not, and how to come by it.
_HAS: dict[type, tuple[str, str]] = {
    AbstractSupervised: (
        "samples and predictions (`samples`, `predictions`, `jvp`, `vjp`)",
        "tw.Objective and other subclasses of tw.objectives.AbstractSupervised have them",
    ),
    Objective: (
        "a prediction function and the data that it is applied to (`predict`, `inputs`)",
        "tw.Objective has them",
    ),
}


def check_objective(
    objective: Any, kind: type[_Kind] = AbstractObjective, *, what: str = "this"
) -> _Kind:
    """The objective, if it is of the kind that `what` needs, without its penalty if need be.

    **Raises:** TypeError that names what is missing and who has it.
    """
    if kind is AbstractSupervised and isinstance(objective, AbstractObjective):
        objective = supervised(objective) or objective
    if isinstance(objective, AbstractObjective) and not isinstance(objective, kind):
        missing, who = _HAS[kind]
        given = type(objective).__name__
        raise TypeError(f"objective: {what} needs {missing}, which {given} does not have; {who}.")
    if isinstance(objective, FunctionType):
        raise TypeError(
            "objective: expected an objective, got a function; `tw.FunctionObjective(function)`"
            " makes one of a function of the parameters."
        )
    check_instance(objective, kind, "objective", "an objective")
    return cast(_Kind, objective)
