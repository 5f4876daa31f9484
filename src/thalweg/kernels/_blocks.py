"""Matrices in pieces."""


def blocks(count: int, size: int) -> list[slice]:
    """Rows in pieces of a size, the last of which may be smaller."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
