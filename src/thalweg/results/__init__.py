"""What public functions return to be looked at."""

from ._citations import citations as citations
from ._drawing import axes_of as axes_of
from ._drawing import draw_line as draw_line
from ._files import load as load
from ._files import save as save
from ._result import AbstractResult as AbstractResult
from ._result import labelled as labelled
from ._resumable import Resumable as Resumable
from ._resumable import Snapshot as Snapshot
from ._resumable import assembled as assembled
from ._resumable import follow as follow
from ._status import Stats as Stats
from ._status import Status as Status
from ._trajectory import Trajectory as Trajectory

__all__ = ["AbstractResult", "Stats", "Status", "Trajectory", "citations", "load", "save"]
