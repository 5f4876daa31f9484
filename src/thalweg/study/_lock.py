"""One process, and one thread of it, at work in a directory.

A lock is a file that says who holds it. It appears under its name complete and only if no file has
that name yet: it is written under another name and linked, which is atomic on network file systems
too. The lock of a process that is known to be dead is taken over; by one contender only, since it
takes a second lock to do so, whose name is that of the dead owner's.
"""

import contextlib
import dataclasses
import json
import os
import platform
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from ._errors import StoreError

LOCK_NAME = "running.lock"
# How often a lock may be given back between two looks at it.
_TRIES = 1000


class Lock:
    """Keeps everyone else from writing to the same directory while a `with` block runs.

    The lock of a process that has died on this machine is taken over. Whether a process on another
    machine still runs cannot be seen: the message then says which file to remove.

    **Raises:** StoreError where another process or thread is at work, and when the directory cannot
    be written.
    """

    def __init__(self, directory: str | Path):
        self._path = Path(directory) / LOCK_NAME
        self._owner: _Owner | None = None

    def __enter__(self) -> "Lock":
        owner = _Owner.here()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _acquire(self._path, owner)
        except OSError as error:
            raise StoreError(f"cannot be written ({error.strerror}).", self._path.parent) from error
        self._owner = owner
        return self

    def __exit__(self, *_: object) -> None:
        assert self._owner is not None
        _release(self._path, self._owner)
        self._owner = None


@dataclasses.dataclass(frozen=True)
class _Owner:
    """Who holds a lock.

    `machine` is what process numbers are unique on, `started` tells processes of the same number
    apart, and `token` the locks of one process.
    """

    pid: int
    host: str
    machine: str
    started: str
    since: str
    token: str

    @staticmethod
    def here() -> "_Owner":
        pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        return _Owner(pid, platform.node(), _machine(), _state(pid)[1], now, uuid.uuid4().hex)

    @property
    def near(self) -> bool:
        """Whether this process can see if that one lives."""
        return (self.host, self.machine) == (platform.node(), _machine())

    @property
    def dead(self) -> bool:
        """Whether it is certain that the process has ended."""
        # Elsewhere signal 0 is no question.
        if not self.near or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        state, started = _state(self.pid)
        another = bool(started and self.started) and started != self.started
        return another or state in ("Z", "X")


@cache
def _machine() -> str:
    """One start of one machine and, for containers, the processes that can be seen there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x}"


def _state(pid: int) -> tuple[str, str]:
    """A process's state and when it was started, as Linux tells them; empty elsewhere."""
    try:
        # The command, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def _acquire(path: Path, owner: _Owner) -> None:
    for _ in range(_TRIES):
        if _created(path, owner):
            return
        held = _read(path)
        if held is None:
            # Given back in the meantime.
            continue
        if not held.dead:
            raise StoreError(_told(held, path), path.parent)
        succession = path.with_name(f"{path.name}.{held.token}")
        _acquire(succession, owner)
        try:
            if _read(path) == held:
                _draft(path, owner).replace(path)
                return
        finally:
            _release(succession, owner)
    raise StoreError(f"{path} can be neither made nor read; remove it.", path.parent)


def _release(path: Path, owner: _Owner) -> None:
    # Someone may have removed it by hand, and someone else have taken it since.
    if _read(path) == owner:
        path.unlink(missing_ok=True)


def _created(path: Path, owner: _Owner) -> bool:
    """Make a file that does not exist yet, all at once; whether that came off."""
    draft = _draft(path, owner)
    try:
        os.link(draft, path)
    except OSError as error:
        # Over a network, an error may be all that is heard of success.
        if draft.stat().st_nlink == 2:
            return True
        return not isinstance(error, FileExistsError) and _created_without_links(path, owner)
    finally:
        draft.unlink()
    return True


def _created_without_links(path: Path, owner: _Owner) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(owner), file)
    except FileExistsError:
        return False
    return True


def _draft(path: Path, owner: _Owner) -> Path:
    """A file with the content of a lock, beside it."""
    draft = path.with_name(f".{LOCK_NAME}.{owner.token}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(owner), file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return draft


def _read(path: Path) -> _Owner | None:
    """Who holds a lock; `None` if nobody does.

    **Raises:** StoreError for a file that does not say.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        kinds = {f.name: f.type for f in dataclasses.fields(_Owner)}
        if {name: type(value) for name, value in found.items()} != kinds:
            raise TypeError
        return _Owner(**found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):
        message = f"{path.name} does not say who is at work here; if nobody is, remove {path}."
        raise StoreError(message, path.parent) from None


def _told(held: _Owner, path: Path) -> str:
    who = f"process {held.pid} on {held.host} is at work here since {held.since}"
    if held.near and os.name == "posix":
        return f"{who}. Wait until it has ended, or end it."
    return f"{who}. Whether it still runs cannot be seen from here. If it does not, remove {path}."
