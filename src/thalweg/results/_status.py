"""How a trajectory ended, and what it cost."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Status:
    """How a trajectory ended.

    `kind`: "completed" when every saved time was reached, or the tolerance of `until`, whether the
    flow stays there (`Trajectory.limit.found`) or not; "diverged" when numbers stopped being finite
    or grew without bound; "stopped" when a limit (of steps, say) was met first; "uncontrolled" when
    the end was reached with an error too large to rely on. `time` and, for an optimizer, `step` say
    where it ended unless it completed.
    """

    kind: Literal["completed", "diverged", "stopped", "uncontrolled"] = "completed"
    message: str = ""
    time: float | None = None
    step: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the end was reached: the kind is "completed" or "uncontrolled"."""
        return self.kind in ("completed", "uncontrolled")


@dataclass(frozen=True)
class Stats:
    """What a trajectory cost.

    `gradients` and `error_gradients` count gradient-equivalents: one gradient or one evaluation of
    a vector field is 1, one Hessian-vector product 2; `gradients` is the price of the solution,
    spectral-radius estimates and rejected steps included, and `error_gradients` what the error
    estimate cost on top. Either is -1 where a solver's cost is not known. `steps` are accepted
    steps, `rejected` rejected ones, both of the solution alone. `solver` names the methods used.
    """

    gradients: int = 0
    error_gradients: int = 0
    steps: int = 0
    rejected: int = 0
    solver: str = ""
