"""`delegator sealing`: a key is rotated on the command line, and the old one can be thrown away. R-sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from delegator.sealing import SealingKey, read_key_file

from ..clock import today
from .conftest import Console

SETTINGS = Path("delegator.toml")


@pytest.fixture
def rotating(acme: Console) -> Console:
    """A claim and a password sealed with the first key; the settings name a new one before it."""
    acme.store(_with_password)
    acme.serve("ABC1234")
    acme.ok("config", "new-key", "var/new.key")
    SETTINGS.write_text('[sealing]\nkey_file = "var/new.key"\nolder_key_files = ["var/sealing.key"]\n')
    return acme


async def _with_password(store):
    from delegator.model import Delegate, HostedCallback, Secret

    await store.add_delegate(Delegate("acme-small", "acme", HostedCallback("root", Secret("planted-password"))),
                             today(),
                             replace=True)


def key_id(name: str) -> str:
    return SealingKey(read_key_file(Path(name))).known[0]


def test_from_the_old_key_to_the_new_one(rotating: Console) -> None:
    before = rotating.ok("sealing", "status")
    assert before["current"] == key_id("var/new.key")
    assert {(one["key"], one["file"]) for one in before["sealed"]} == {(key_id("var/sealing.key"), "var/sealing.key")}
    assert {one["table"] for one in before["sealed"]} >= {"claims", "delegates"}
    done = rotating.ok("sealing", "rotate")
    assert (done["key"], done["left"]) == (key_id("var/new.key"), 0)
    assert done["sealed_again"] == sum(one["values"] for one in before["sealed"])
    after = rotating.ok("sealing", "status")
    assert {one["key"] for one in after["sealed"]} == {key_id("var/new.key")}
    assert after["unneeded"] == ["var/sealing.key"]
    SETTINGS.write_text('[sealing]\nkey_file = "var/new.key"\n')
    Path("var/sealing.key").unlink()
    assert [one["state"] for one in rotating.ok("claims", "list")] == ["issued"]
    assert rotating.ok("sealing", "status")["missing"] == []
    assert rotating.ok("delegates", "show", "acme-small")["name"] == "acme-small"


def test_it_says_which_file_can_go(rotating: Console) -> None:
    done = rotating.run("sealing", "rotate")
    assert "var/sealing.key can be taken out of older_key_files" in done.err
    assert "var/sealing.key is not needed any more" in rotating.run("sealing", "status").err


def test_a_second_time_there_is_nothing_to_do(rotating: Console) -> None:
    rotating.ok("sealing", "rotate")
    assert rotating.ok("sealing", "rotate")["sealed_again"] == 0


def test_a_key_that_is_gone_is_told_before_it_hurts(rotating: Console) -> None:
    SETTINGS.write_text('[sealing]\nkey_file = "var/new.key"\n')
    done = rotating.run("sealing", "status", "--json")
    assert done.code == 3
    assert done.json["missing"] == [key_id("var/sealing.key")]
    said = rotating.refused(3, "sealing", "rotate")
    assert "older_key_files" in said
    assert f"var/new.key is key {key_id('var/new.key')}" in said, "the file, by the name that an operator knows"
    SETTINGS.write_text('[sealing]\nkey_file = "var/new.key"\nolder_key_files = ["var/sealing.key"]\n')
    assert rotating.ok("sealing", "rotate")["left"] == 0


def test_no_key_and_nothing_sealed_is_ever_shown(rotating: Console) -> None:
    rotating.run("sealing", "status")
    rotating.run("sealing", "rotate")
    for name in ("var/new.key", "var/sealing.key"):
        assert Path(name).read_text().strip() not in rotating.said
    assert "planted-password" not in rotating.said
