"""What a stage spent: recorded with its results, and read from there for the report."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..results import Stats


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a stage spent, in units of one full-batch gradient.

    `gradients` are those of the result, `error_gradients` what its error estimate took on top, and
    `products` Hessian-vector products, each worth two gradients. Either of the first two is -1
    where it is not known. `steps` and `rejected` are those of a solver; `solver` is the method.
    """

    gradients: int
    error_gradients: int = 0
    products: int = 0
    steps: int = 0
    rejected: int = 0
    solver: str = ""

    @staticmethod
    def of_run(stats: Stats, price: int = 1) -> "Cost":
        """The cost of a flow or a run, where one evaluation is worth so many gradients."""
        gradients, on_top = (
            n if n < 0 else price * n for n in (stats.gradients, stats.error_gradients)
        )
        return Cost(gradients, on_top, 0, stats.steps, stats.rejected, stats.solver)

    @staticmethod
    def recorded(attributes: Mapping[str, Any]) -> "Cost | None":
        """What a group of a store has recorded; `None` for one that has recorded nothing."""
        names = [field.name for field in dataclasses.fields(Cost)]
        return Cost(**{n: attributes[n] for n in names}) if names[0] in attributes else None

    @property
    def attributes(self) -> dict[str, Any]:
        """The record, for a group of a store."""
        return dataclasses.asdict(self)

    @property
    def total(self) -> int:
        """Everything in gradients; -1 where it is not known."""
        if min(self.gradients, self.error_gradients) < 0:
            return -1
        return self.gradients + self.error_gradients + 2 * self.products
