"""What all commands share: options, progress, and how things are told."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Quiet = Annotated[bool, Parameter(name="--quiet", negative="")]


def with_jax() -> None:
    """Import JAX in the precision that studies are made for."""
    import jax

    jax.config.update("jax_enable_x64", True)


def progress(quiet: bool):
    """Bars or lines on the error stream, or nothing."""
    from .study.progress import Silent, for_stream

    return Silent() if quiet else for_stream(sys.stderr)


def complain(message: str) -> None:
    """Print what went wrong."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False)


def tell(title: str, found: list[dict], report_path: Path) -> None:
    """Print sentences with their marks, and where the report is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"good": "[green]✓[/]", "notice": "[cyan]•[/]", "warning": "[yellow]![/]"}
    sentences = Table.grid(padding=(0, 1))
    for sentence in found:
        sentences.add_row(marks[sentence["level"]], Text(sentence["text"]))
    console = Console(highlight=False)
    console.print(f"\n[bold]{title}[/]   [dim]✓ holds   • to note   ! to look at[/]")
    console.print(sentences)
    console.print()
    print(f"report: {report_path}")
