"""A list's filters: those that were given, and no value in a statement."""

from __future__ import annotations

from delegator.store.filters import chosen


def test_what_was_not_asked_for_is_no_part_of_the_statement() -> None:
    assert chosen({"customer = {0}": None, "state = {0}": "open", "a = {0} OR b = {0}": "x"}, 2) == (
        "(state = $2) AND (a = $3 OR b = $3)", ("open", "x"))
    assert chosen({"customer = {0}": None}) == ("1 = 1", ())
    assert chosen({"number = {0}": 0, "text = {0}": ""}) == ("(number = $1) AND (text = $2)", (0, ""))


def test_a_value_never_becomes_a_part_of_it() -> None:
    evil = "'; DROP TABLE claims; -- {0} $1"
    assert chosen({"customer = {0}": evil}) == ("(customer = $1)", (evil,))
