"""Telling how far a study has come."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

# What most stages count.
SAVED = "saved times"


class Stage(Protocol):
    """One stage under way."""

    def at(self, done: int) -> None:
        """So many of its saved times are done."""
        ...


class Progress(Protocol):
    """Something that is told about stages."""

    def say(self, text: str) -> None:
        """One line about the whole."""
        ...

    def stage(self, title: str, total: int, of: str = SAVED) -> AbstractContextManager[Stage]:
        """A stage that will go through so many things, saved times unless said otherwise."""
        ...


class Silent:
    """Tells nothing."""

    class _Stage:
        def at(self, done: int) -> None:
            pass

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def stage(self, title: str, total: int, of: str = SAVED) -> Iterator[Stage]:
        yield self._Stage()


class Lines:
    """Plain lines, for logs and pipes: one at the start of each stage, few on the way, one at the
    end."""

    def __init__(self, out: TextIO | None = None, seconds_between: float = 10.0):
        self._out = out or sys.stderr
        self._between = seconds_between

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    @contextmanager
    def stage(self, title: str, total: int, of: str = SAVED) -> Iterator[Stage]:
        stage = _LineStage(title, total, of, self._out, self._between)
        stage.begin()
        yield stage
        stage.end()


class _LineStage:
    def __init__(self, title: str, total: int, of: str, out: TextIO, between: float):
        self._title, self._total, self._of, self._out = title, total, of, out
        self._between = between
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def begin(self) -> None:
        self._say(f"{self._total} {self._of} ...")

    def at(self, done: int) -> None:
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if now - self._last >= self._between and done < self._total:
            self._last = now
            rate = (done - self._first) / (now - self._start)
            left = (self._total - done) / rate if rate > 0 else float("nan")
            self._say(f"{done}/{self._total}, {rate:.2g}/s, {left:.0f} s left")

    def end(self) -> None:
        self._say(f"done in {time.monotonic() - self._start:.1f} s")

    def _say(self, text: str) -> None:
        print(f"{self._title}: {text}", file=self._out, flush=True)


class Bars:
    """Bars with rate and time left, for a terminal."""

    def say(self, text: str) -> None:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)

    @contextmanager
    def stage(self, title: str, total: int, of: str = SAVED) -> Iterator[Stage]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class RateColumn(ProgressColumn):
            """Saved times a second."""

            def render(self, task):
                speed = task.finished_speed or task.speed
                return Text(f"{speed:6.1f}/s" if speed else "", style="progress.data.speed")

        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[of]}"),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(title, total=total, of=of)
            yield _BarStage(bars, task)


class _BarStage:
    def __init__(self, bars, task):
        self._bars, self._task = bars, task

    def at(self, done: int) -> None:
        self._bars.update(self._task, completed=done)


def for_stream(out: TextIO) -> Progress:
    """Bars on a terminal, plain lines elsewhere."""
    return Bars() if out.isatty() else Lines(out)
