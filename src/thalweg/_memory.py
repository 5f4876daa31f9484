"""How much memory a process may have on this machine, and the refusal of what needs more."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def machine_memory() -> int | None:
    """Bytes of main memory that this process may have; `None` where the system does not tell.

    The smallest of what the machine has, what the control groups of the process allow (containers,
    batch systems), and the limit on its address space.
    """
    limits = [limit for limit in (_physical(), *_of_groups(), _of_address_space()) if limit]
    return min(limits, default=None)


def check_memory(needed: int, field: str, what: str) -> None:
    """Refuse arrays that do not fit into the machine's memory, before they are made.

    **Raises:** ValueError that starts with `field` and tells both numbers.
    """
    limit = machine_memory()
    if limit is not None and needed > limit:
        raise ValueError(
            f"{field}: {what} would take {in_words(needed)} of memory, but this machine has"
            f" {in_words(limit)}."
        )


def check_parameters(count: int, field: str, itemsize: int) -> None:
    """Refuse a network whose parameters do not fit into the machine's memory.

    **Raises:** ValueError that starts with `field`.
    """
    check_memory(count * itemsize, field, f"{count:,} parameters")


def in_words(size: int) -> str:
    """A number of bytes with three digits and its unit."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    whole, rest = divmod(size, 2 ** (10 * power))
    if whole >= 2**64:
        return f"2^{size.bit_length() - 1} B"
    number = whole + rest / 2 ** (10 * power)
    return f"{number:.3g} {_UNITS[power]}" if number < 999.5 else f"{number:,.0f} {_UNITS[power]}"


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _of_groups() -> Iterator[int]:
    """The limits of the process's control groups and of those that these are in."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            try:
                yield int((folder / name).read_text())
            except (OSError, ValueError):
                # Without a limit ("max"), or not visible from within a container.
                continue


def _of_address_space() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
