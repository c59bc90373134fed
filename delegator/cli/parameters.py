"""Forms, ranges and refusals of the desk as click has them: the same words, at the parameter that they are about.

The invariant: nothing is judged here, so whoever comes in by another door meets the same rules.
Must not live here: any form or rule (desk).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.types import FuncParamType

from delegator.desk.refusals import Clash, Unfit
from delegator.desk.sheets import Range
from delegator.errors import DelegatorError, Kind


class Typed(FuncParamType):  # type: ignore[type-arg]
    """See `typed`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.func(value)
        except UnicodeError:  # a ValueError too, whose words are about bytes
            self.fail(str(value), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def typed(form: Callable[[str], Any]) -> Typed:
    """A form of the desk as the type of a parameter; help shows the form's name as the placeholder."""
    return Typed(form)


def ranged(numbers: Range) -> click.IntRange:
    """A range of the desk, the same way."""
    return click.IntRange(numbers.least, numbers.most)


def option_of(field: str) -> str:
    """How the command line calls a field."""
    return f"--{field.replace('_', '-')}"


@contextlib.contextmanager
def as_usage(called: Callable[[str], str] = option_of) -> Iterator[None]:
    """What does not go together is a usage error, in which each field is called by its option."""
    try:
        yield
    except Clash as error:
        raise click.UsageError(error.called(called)) from None
    except Unfit:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def as_configuration(path: object) -> Iterator[None]:
    """What a file does not hold that it should is DelegatorError (CONFIGURATION), with its path in the hint."""
    try:
        yield
    except Unfit as error:
        hint = error.hint.replace("{path}", str(path))
        raise DelegatorError(Kind.CONFIGURATION, str(error), hint=hint) from None
