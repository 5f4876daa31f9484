"""What a part of a study has to say about itself."""

import abc
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from ...datasets import DataShape
from .._consistency import Sections
from .._cost import Cost
from .._errors import FieldError
from .._needs import Need, Sizes
from ..charts import Figure, Table
from ..plan import Plan
from ..results import Member, Results
from ..sentences import Sentence
from ..work import Work


class Spent(NamedTuple):
    """What a part of a stage is called, cost, how it ended, and how long it took if that is known.

    `cost` is `None` where nothing is recorded.
    """

    what: str
    cost: Cost | None
    ended: str
    seconds: float | None = None


class Stage(abc.ABC):
    """One part of a study: what it needs, computes, stores, says, draws and costs.

    A stage stores its results in groups below its `name`, one for each of its parts. What it says
    and draws it reads from there, so that a report needs the store alone. `after` names the stages
    whose results it reads.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def carry_out(self, work: Work) -> None:
        """Compute and store what the plan asks for and is not complete yet."""

    def rows(self, plan: Plan) -> int:
        """How many rows like the parameters it stores."""
        return 0

    def memory(self, sections: Sections, sizes: Sizes) -> Iterator[Need]:
        """The memory that it takes, as far as the sections are known."""
        return iter(())

    def misfits(self, sections: Sections, shape: DataShape, sizes: Sizes) -> Iterator[FieldError]:
        """What it cannot do with data and a network of these sizes."""
        return iter(())

    def says_of(self, run: Member, results: Results) -> Iterator[Sentence]:
        """Its findings about the run of one optimizer."""
        return iter(())

    def says(self, results: Results) -> Iterator[Sentence]:
        """Its other findings."""
        return iter(())

    def draws(self, results: Results) -> Iterator[Figure]:
        """Its charts."""
        return iter(())

    def cells(self, run: Member, results: Results) -> dict[str, str]:
        """What it has for the table of numbers at the end of a run: a text by row."""
        return {}

    def tables(self, results: Results) -> Iterator[tuple[str, Table, str]]:
        """Tables of its own: a title, the table, and a note."""
        return iter(())

    def remarks(self, results: Results) -> Iterator[str]:
        """Sentences that stand below the table of numbers."""
        return iter(())

    def costs(self, results: Results) -> Iterator[Spent]:
        """What each part cost."""
        labels = {run.name: run.label for run in (*results.flows, *results.runs)}
        for part in results.of(self.name).values():
            yield Spent(
                self.titled(labels.get(part.name, part.name)),
                part.cost,
                self.ended(part),
                results.seconds.get(f"{self.name}/{part.name}"),
            )

    def titled(self, part: str) -> str:
        """A part among what other stages have of the same name."""
        return part

    def ended(self, part: Member) -> str:
        """How a part ended, or that it has not."""
        kind = part.attributes.get("status_kind")
        return str(kind or "completed") if part.complete else "under way"
