"""Whom to cite, read off the docstrings of the classes that were used."""

import inspect
import re
from typing import Any

_MARK = re.compile(r'^\?\?\? cite "References?"\s*$', re.MULTILINE)


def citations(*used: Any) -> list[str]:
    """The works that the docstrings of objects, classes or functions name, each once.

    Docstrings name them below a line `??? cite "Reference"`, indented, with a blank line between
    two works.
    """
    found: dict[str, None] = {}
    for thing in used:
        if thing is None:
            continue
        source = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
        # Not the docstring that a class inherits.
        text = inspect.cleandoc(vars(source).get("__doc__") or getattr(source, "__doc__", "") or "")
        for mark in _MARK.finditer(text):
            block = re.split(r"\n(?=\S)", text[mark.end() :].lstrip("\n"))[0]
            works = re.split(r"\n\s*\n", inspect.cleandoc(block))
            found.update((" ".join(work.split()), None) for work in works if work.strip())
    return list(found)
