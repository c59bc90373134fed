"""How the desk refuses: every refusal is a ValueError, and each door calls fields as it likes."""

from __future__ import annotations

import pytest

from delegator.desk.refusals import Clash, Unfit, Wrong
from delegator.desk.sheets import Field, Range, Sheet, many, switch, text


def _lower(word: str) -> str:
    if not word.islower():
        raise ValueError(f"{word!a} must be lower case")
    return word


def _made(fields: dict[str, object]) -> dict[str, object]:
    if fields.get("most") == 7:
        raise Clash("{most} does not go with {names}", at="most")
    return dict(fields)


SHEET: Sheet[dict[str, object]] = Sheet("thing", {
    "name": Field("called", text(_lower)), "names": Field("names", many(_lower)), "most": Field("most", Range(1, 9)),
    "on": Field("on", switch), "maybe": Field("maybe", text(_lower), empty=True)}, _made, frozenset({"name"}))


def test_a_clash_says_its_fields_as_each_door_calls_them_and_braces_of_people_stay() -> None:
    clash = Clash("{until} is not after {from}", at="until", until="{x}")
    assert str(clash) == "until {x} is not after from"
    assert clash.called(lambda field: f"<{field}>") == "<until> {x} is not after <from>"
    assert clash.reason == "until: is not after from"


@pytest.mark.parametrize("error", [Clash("no", at="x"), Unfit("no"), Wrong(["a: no"])])
def test_every_refusal_is_a_value_error(error: Exception) -> None:
    assert isinstance(error, ValueError)


def test_everything_that_is_wrong_is_told_and_not_the_first_thing_alone() -> None:
    with pytest.raises(Wrong) as wrong:
        SHEET.read({"names": ["a", "B"], "most": 10, "on": 1, "more": None})
    assert [one.partition(":")[0] for one in wrong.value.reasons] == [
        "unknown name 'more'; there are name, names, most, on, maybe", "names", "most", "on", "name"]


def test_what_may_be_empty_may_be_and_nothing_else() -> None:
    assert SHEET.read({"name": "a", "maybe": None}) == {"called": "a", "maybe": None}
    with pytest.raises(Wrong, match=r"^on: must be true or false$"):
        SHEET.read({"name": "a", "on": None})
    with pytest.raises(Wrong, match=r"^name: must be a string$"):
        SHEET.read({"name": None})


def test_fields_that_are_right_alone_and_wrong_together_are_refused_at_one_of_them() -> None:
    with pytest.raises(Wrong, match=r"^most: does not go with names$"):
        SHEET.read({"name": "a", "most": 7})
