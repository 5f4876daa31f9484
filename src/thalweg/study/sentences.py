"""What a study says in words, and the limits that its words go by."""

import dataclasses
from typing import Any, Literal

from .results import Member

# Fractions of the distance that the flow travels: a run within the first is close to its flow, one
# beyond the second has left it.
CLOSE = 0.01
LEFT = 0.05
# The kernel's movement, as a fraction of itself, up to which a run is lazy.
LAZY = 0.1
# Sharpness x step size, as a fraction of the stability limit, between which a run is at the edge.
EDGE = (0.95, 1.05)
# Measured over predicted distance, between which the first-order law holds.
LAWFUL = (0.8, 1.25)

Level = Literal["good", "notice", "warning"]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One finding: words, how good the news is, and the numbers in it.

    `short` says the same in a few words, under a `topic`, for one line about a run. `run` (its
    name), `subject` (what sentences call it) and `stage` say what it is about; `verdict` fills
    them in.
    """

    text: str
    level: Level
    numbers: dict[str, float]
    topic: str = ""
    short: str = ""
    run: str = ""
    subject: str = ""
    stage: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def who(run: Member) -> str:
    """A run as the subject of a sentence: `Heavy ball with step 0.01`."""
    label = str(run.attributes["label"])
    given = label if run.name == label.replace(" ", "_").lower() else f"{label} ({run.name})"
    subject = f"{given[0].upper()}{given[1:]}"
    step = run.attributes.get("step_size")
    return subject if step is None else f"{subject} with step {float(step):g}"
