"""A sheet: one value as people fill it in, field by field. Each field has its form, and what must go together is said
once.

A command line reads each option by the field's form and then asks `make`; a file, or a request by HTTP, is read whole
by `read`, which tells everything that is wrong and not the first thing alone.
The invariant: what `read` and `make` return has passed every rule that there is; a field that a sheet does not know is
refused, never passed over.
Must not live here: the sheets themselves (registering, policies, delegates, plans, ownership), forms of words (forms).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from delegator.desk.refusals import Clash, Wrong

T = TypeVar("T")
Read = Callable[[object], Any]
"""Makes what a field holds of what was said, or raises ValueError."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `least` to `most`, both included; without `most` there is no end."""

    least: int
    most: int | None = None

    def __call__(self, value: object) -> int:
        """Raises ValueError."""
        if not isinstance(value, int) or isinstance(value, bool) or value < self.least:
            raise ValueError(f"must be a number of at least {self.least}")
        if self.most is not None and value > self.most:
            raise ValueError(f"must be a number of at most {self.most}")
        return value


def text(form: Callable[[str], Any]) -> Read:
    """A field that is a text of this form."""
    def read(value: object) -> Any:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        return form(value)
    return read


def many(form: Callable[[str], Any]) -> Read:
    """A field that is a list of such texts."""
    def read(value: object) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("must be a list of strings")
        return tuple(text(form)(one) for one in value)
    return read


def switch(value: object) -> bool:
    """A field that is on or off. Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """`into` is what the value calls it; `empty` says that it may be said to be nothing."""

    into: str
    read: Read
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Sheet(Generic[T]):
    """See the module. `fields` are called as people call them, and as the value's shape does; `make` is given what was
    said by the names that the value has for it. `wanted` are the fields without which there is no such value."""

    noun: str
    fields: Mapping[str, Field]
    make: Callable[[Mapping[str, Any]], T]
    wanted: frozenset[str] = frozenset()

    def read(self, said: Mapping[str, object]) -> T:
        """Raises Wrong with everything that is wrong, or what `make` raises, where each field is right by itself."""
        wrong: list[str] = []
        fields = self.said(said, wrong)
        wrong += [f"{name}: is missing" for name in self.fields if name in self.wanted and name not in said]
        if wrong:
            raise Wrong(wrong)
        try:
            return self.make(fields)
        except Clash as error:
            raise Wrong([error.reason]) from None

    def said(self, said: Mapping[str, object], wrong: list[str]) -> dict[str, Any]:
        """What was said, in the value's own names; `wrong` is told what does not fit."""
        wrong += [f"unknown name {name[:40]!a}; there are {', '.join(self.fields)}" for name in said
                  if name not in self.fields]
        return {one.into: None if said[name] is None and one.empty else converted(name, one.read, said[name], wrong)
                for name, one in self.fields.items() if name in said}


def converted(name: str, form: Read, value: object, wrong: list[str]) -> Any:
    """The value in its form; None where it does not fit, which `wrong` then tells."""
    try:
        return form(value)
    except Wrong as error:
        wrong += [f"{name}.{reason}" for reason in error.reasons]
    except ValueError as error:
        wrong.append(f"{name}: {error}")
    return None
