"""What a study's file may say about a thing: the base of every section, and the types of keys."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
# A momentum.
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
# What is counted one by one; JAX does it with 32 bits where 64 are off.
Counted = Annotated[int, Field(ge=1, lt=2**31)]
# Layers: every one of them is a program for the compiler.
Widths = Annotated[list[Count], Field(max_length=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")]


class Section(BaseModel):
    """One table of the TOML file: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Section)


class OneOf:
    """The sections of one kind that a package has, told apart by their key `kind`.

    `Annotated[OptimizerSection, OneOf(optimizers)]` is the type of a table that declares any of
    the optimizers in that package. A section belongs to it once the package has its name.
    """

    def __init__(self, package: ModuleType):
        self._package = package

    def classes(self, base: type[Kind]) -> list[type[Kind]]:
        """The package's sections derived from `base`, without abstract ones."""
        classes = [value for value in vars(self._package).values() if isinstance(value, type)]
        return [c for c in classes if issubclass(c, base) and not inspect.isabstract(c)]

    def __get_pydantic_core_schema__(self, source: type[Section], handler: Callable[[Any], Any]):
        union = Union[tuple(self.classes(source))]  # noqa: UP007
        return handler.generate_schema(Annotated[union, Field(discriminator="kind")])  # pyright: ignore


def kinds(section: type[Section]) -> tuple[str, ...]:
    """What the key `kind` of a section may be."""
    return get_args(section.model_fields["kind"].annotation)
