"""The desk's refusals as click has them: the same words, each field called by its option."""

from __future__ import annotations

import click
import pytest

from delegator.cli.parameters import as_configuration, as_usage, ranged, typed
from delegator.desk.refusals import Clash, Unfit
from delegator.desk.sheets import Range
from delegator.errors import DelegatorError, Kind


def shouted(text: str) -> str:
    """A form."""
    if not text.isupper():
        raise ValueError(f"{text!a} must be shouted")
    return text.encode("ascii").decode()


def test_a_form_is_a_type_that_refuses_in_the_forms_words() -> None:
    kind = typed(shouted)
    assert (kind.convert("LOUD", None, None), kind.name) == ("LOUD", "shouted")
    with pytest.raises(click.BadParameter, match=r"^'low' must be shouted$"):
        kind.convert("low", None, None)


def test_words_about_bytes_are_no_words_for_people() -> None:
    with pytest.raises(click.BadParameter, match=r"^É$"):
        typed(shouted).convert("É", None, None)


def test_a_range_has_its_ends() -> None:
    kind = ranged(Range(1, 5))
    assert (kind.min, kind.max) == (1, 5)


def test_what_clashes_is_a_usage_error_that_names_options() -> None:
    with pytest.raises(click.UsageError, match=r"^--valid-until {x} is not after --from$"), as_usage():
        raise Clash("{valid_until} is not after {from}", at="valid_until", valid_until="{x}")
    with pytest.raises(click.UsageError, match=r"^TAG is missing$"), as_usage({"tag": "TAG"}.__getitem__):
        raise Clash("{tag} is missing", at="tag")
    with pytest.raises(click.UsageError, match=r"^no$"), as_usage():
        raise ValueError("no")


def test_what_a_file_does_not_hold_is_told_with_its_path_in_the_hint() -> None:
    with pytest.raises(DelegatorError, match=r"^it is empty$") as told, as_configuration("a{b}.pem"):
        raise Unfit("it is empty", "look at {path}")
    assert (told.value.kind, told.value.hint) == (Kind.CONFIGURATION, "look at a{b}.pem")


def test_a_file_that_is_unfit_is_no_wrong_usage() -> None:
    with pytest.raises(DelegatorError), as_usage(), as_configuration(""):
        raise Unfit("it is empty")
