"""Pages that need nothing else: style and charts are inside, and nothing is fetched."""

import base64
import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from .._errors import StoreError
from ..charts import Chart

_OURS = "thalweg.study.report"
_MARKS = {"good": "holds", "notice": "note", "warning": "look"}


def page(package: str, template: str, **values: Any) -> str:
    """A template of a package, rendered. All text that came from outside is escaped.

    Templates may import `macros.html.j2`, and have our style sheet as `style`.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([_resources(package), _resources(_OURS)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Our own style sheet and charts; every foreign text inside a chart is escaped there.
    style = Markup(files(_OURS).joinpath("style.css").read_text("utf-8"))
    return environment.get_template(template).render(style=style, **values)


def _resources(package: str) -> jinja2.FunctionLoader:
    def load(name: str) -> str | None:
        file = files(package).joinpath(name)
        return file.read_text("utf-8") if file.is_file() else None

    return jinja2.FunctionLoader(load)


def written(html: str, path: Path) -> Path:
    """The page in its file. Written beside and moved into place: never half a page.

    **Raises:** StoreError when it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(html, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StoreError(
            f"cannot be written ({error.strerror}). The results are kept: when there is room, ask"
            f" for the report again.",
            path,
        ) from error
    return path


def marked(sentences: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sentences of a verdict, each with the word that stands before it."""
    return [{**s, "mark": _MARKS.get(s["level"], "note")} for s in sentences]


def _file(kind: str, content: str) -> str:
    """A file as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"


def drawn(chart: Chart) -> dict[str, Any]:
    """A chart with its legend, of lines with a label, and as files to keep.

    `empty` when there is nothing to draw.
    """
    legend = [(line.label, line.colour, line.quiet) for line in chart.lines if line.label]
    empty = not any(line.y for line in chart.lines)
    return {
        "svg_file": _file("image/svg+xml", chart.standalone()) if not empty else "",
        "csv_file": _file("text/csv", chart.csv()) if not empty else "",
        "file_name": re.sub(r"[^a-z0-9]+", "-", chart.title.lower()).strip("-"),
        "title": chart.title,
        "svg": Markup(chart.svg()) if not empty else Markup(""),
        "legend": legend,
        "empty": empty,
    }
