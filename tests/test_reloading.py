"""Which settings take effect at once: one table, whole, and the settings that result. A10."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from delegator.config import Limits, Server, Settings
from delegator.reloading import EFFECTS, Effect, changed, effect, in_effect

ALL = [(section, key) for section, values in msgspec.to_builtins(Settings()).items() for key in values]


@pytest.mark.parametrize(("section", "key"), ALL)
def test_the_table_knows_every_setting(section: str, key: str) -> None:
    assert f"{section}.{key}" in EFFECTS or section in EFFECTS


def test_the_table_knows_nothing_else() -> None:
    names = {section for section, _ in ALL} | {f"{section}.{key}" for section, key in ALL}
    assert set(EFFECTS) <= names


def test_the_manual_names_what_waits_for_a_start() -> None:
    text = (Path(__file__).parents[1] / "docs" / "operators.md").read_text(encoding="utf-8")
    section = text.split("\n## Reloading\n")[1].split("\n## ")[0]
    (sentence,) = re.findall(r"\n(`\[server\].*?) take effect at the next start", section, re.DOTALL)
    assert sentence == "`[server] host`, `port` and `workers` and everything in `[store]`"
    assert {name for name, when in EFFECTS.items() if when is Effect.RESTART} == {
        "server.host", "server.port", "server.workers", "store"}


def test_what_the_table_does_not_know_waits_for_a_start() -> None:
    assert effect("nobody", "knows") is Effect.RESTART


def test_what_takes_effect_and_what_waits_by_name() -> None:
    before = Settings(server=Server(port=4433, url=""))
    after = Settings(server=Server(port=5544, url="https://x/"), limits=Limits(idle=3.0))
    assert changed(before, after) == ("server.port", "server.url", "limits.idle")
    result, waiting = in_effect(before, after)
    assert waiting == ("server.port",)
    assert (result.server.port, result.server.url, result.limits.idle) == (4433, "https://x/", 3.0)


def test_asking_again_tells_it_again() -> None:
    """What waits is compared with what is in effect, not with what was read last."""
    before, after = Settings(), Settings(server=Server(port=1))
    once, _ = in_effect(before, after)
    assert in_effect(once, after)[1] == ("server.port",)
    assert in_effect(once, before)[1] == ()
