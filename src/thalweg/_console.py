"""What all commands share: options, progress, and how things are told."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Quiet = Annotated[bool, Parameter(name="--quiet", negative="")]
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Strict = Annotated[bool, Parameter(name="--strict", negative="")]
Only = Annotated[list[str] | None, Parameter(name="--only", negative="", consume_multiple=True)]


_PLAIN = {"good": "✓", "notice": "•", "warning": "!"}


def with_jax() -> None:
    """Import JAX in the precision that studies are made for."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        # Compiled programs are kept between runs; JAX_COMPILATION_CACHE_DIR says where else.
        jax.config.update("jax_compilation_cache_dir", str(_cache() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache() -> Path:
    """The folder for what can be made again."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "thalweg"


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
    console = Console(highlight=False)
    if not console.is_terminal:
        # A line for each, for what reads lines.
        print(f"\n{title}")
        for sentence in found:
            print(f"{_PLAIN[sentence['level']]} {sentence['text']}")
        print(f"\nreport: {report_path}")
        return
    sentences = Table.grid(padding=(0, 1))
    for sentence in found:
        sentences.add_row(marks[sentence["level"]], Text(sentence["text"]))
    console.print(f"\n[bold]{title}[/]   [dim]✓ holds   • to note   ! to look at[/]")
    console.print(sentences)
    console.print()
    print(f"report: {report_path}")
