"""What the sections of a study ask of one another.

Checked as far as the sections are known, so that all mistakes of a file are told at once.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..flows import Flow, SecondOrderFlow
from ..optimizers import Optimizer
from ._errors import FieldError, mistakes_in

Path = tuple[str | int, ...]

# Smallest relative tolerances that the dtypes can give; see `integrate`.
_FLOOR = {"float64": 2.3e-15, "float32": 1.2e-6}
_FLOW_NAME = re.compile(r"(gradient|heavy_ball|nesterov)_flow(_\d+)?")
MOST_STEPS = 1e9


@dataclass(frozen=True)
class Sections:
    """The sections of a study that are known.

    `parts` are those that can be read, optimizers one by one as `("optimizers", i)`; `wrong` are
    the keys in them that cannot, in place of which they have their defaults.
    """

    parts: Mapping[Path, Any]
    wrong: frozenset[Path] = frozenset()

    @staticmethod
    def of(spec: Any) -> "Sections":
        """All sections of a whole study."""
        parts: dict[Path, Any] = {(name,): section for name, section in spec}
        parts |= {("optimizers", i): run for i, run in enumerate(parts.pop(("optimizers",)))}
        return Sections(parts)

    def know(self, *paths: Path) -> bool:
        """Whether all these sections or keys are known."""
        return all(
            path in self.parts
            or (path not in self.wrong and hasattr(self.parts.get(path[:-1]), str(path[-1])))
            for path in paths
        )

    def sound(self, *names: str) -> bool:
        """Whether these sections are known with every one of their keys."""
        wrong = {path[0] for path in self.wrong}
        known = {path[0] for path in self.parts}
        return all(name in known and name not in wrong for name in names)

    def __getitem__(self, name: str) -> Any:
        return self.parts[(name,)]

    def made(self) -> Iterator[tuple[int, Optimizer]]:
        """The optimizers that can be made, with their places."""
        for i, run in self.runs():
            if any(path[:2] == ("optimizers", i) for path in self.wrong):
                continue
            with contextlib.suppress(ValueError, TypeError):
                yield i, run.make()

    @property
    def first_order(self) -> bool:
        """Whether all flows that are followed are of first order, as far as is known."""
        return not any(isinstance(flow, SecondOrderFlow) for flow in self._flows())

    @property
    def most(self) -> int:
        """At most so many runs save the times of one flow."""
        return max(1, sum(1 for _ in self.runs()))

    def _flows(self) -> Iterator[Flow]:
        for _, optimizer in self.made():
            with contextlib.suppress(ValueError):
                yield optimizer.limit()

    def runs(self) -> Iterator[tuple[int, Any]]:
        """The optimizers that are known, with their places."""
        for path, run in self.parts.items():
            if path[0] == "optimizers":
                yield int(path[1]), run


def inconsistencies(sections: Sections) -> list[FieldError]:
    """Every contradiction between keys that are right by themselves."""
    return [
        *_numbers_beyond_the_dtype(sections),
        *_tolerances_out_of_reach(sections),
        *_optimizers_that_cannot_be_made(sections),
        *_steps_that_do_not_fit(sections),
        *_names_that_clash(sections),
    ]


def _optimizers_that_cannot_be_made(sections: Sections) -> Iterator[FieldError]:
    for i, run in sections.runs():
        if any(path[:2] == ("optimizers", i) for path in sections.wrong):
            continue
        try:
            with mistakes_in(("optimizers", i), run):
                run.make()
        except FieldError as error:
            yield error


def _names_that_clash(sections: Sections) -> Iterator[FieldError]:
    seen = set()
    for i, run in sections.runs():
        if not sections.know(("optimizers", i, "name"), ("optimizers", i, "kind")):
            continue
        name = run.known_as
        if _FLOW_NAME.fullmatch(name):
            # Curvature is stored by name, for flows and optimizers side by side.
            yield FieldError(("optimizers", i, "name"), f"{name!r} is the name of a flow")
        if name in seen:
            message = f"a second optimizer is called {name!r}; give `name`s"
            yield FieldError(("optimizers", i), message)
        seen.add(name)


def _tolerances_out_of_reach(sections: Sections) -> Iterator[FieldError]:
    if not sections.know(("study", "dtype"), ("flow", "rtol")):
        return
    dtype, rtol = sections["study"].dtype, sections["flow"].rtol
    floor = _FLOOR[dtype]
    if rtol is not None and rtol < floor:
        message = f"{rtol:g} is finer than {dtype} can give (at least {floor:g})"
        yield FieldError(("flow", "rtol"), message)


def _steps_that_do_not_fit(sections: Sections) -> Iterator[FieldError]:
    if not sections.know(("flow", "t1")):
        return
    t1 = sections["flow"].t1
    for i, run in sections.runs():
        path = ("optimizers", i, run.clock)
        try:
            step = run.time_of_step()
        except (AttributeError, ValueError):
            continue
        if not sections.know(path):
            continue
        given, steps = getattr(run, run.clock) or step, t1 / step
        if steps < 2:
            yield FieldError(
                path,
                f"{given:g} makes a step of {step:g} of time, so that fewer than 2 steps fit into"
                f" t1 = {t1:g}",
            )
        if steps > MOST_STEPS:
            yield FieldError(path, f"{given:g} takes {steps:.2g} steps to reach t1 = {t1:g}")


def _numbers_beyond_the_dtype(sections: Sections) -> Iterator[FieldError]:
    if not sections.know(("study", "dtype")):
        return
    dtype = sections["study"].dtype
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).tiny)
    for path, section in sections.parts.items():
        for key, value in section:
            if not isinstance(value, float) or not sections.know((*path, key)):
                continue
            if abs(value) > largest:
                message = f"{value:g} is too large for {dtype} (at most {largest:g})"
                yield FieldError((*path, key), message)
            elif 0 < abs(value) < smallest:
                message = f"{value:g} is too small for {dtype} (at least {smallest:g})"
                yield FieldError((*path, key), message)
