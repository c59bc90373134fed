"""The table of ways: each is whole, one that does not load refuses itself, and nobody else knows which is which."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from delegator.callbacks import Callbacks, calling
from delegator.callbacks.guard import Guard, Limits
from delegator.config import CallbackSettings
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    WAYS,
    CallbackWay,
    Delegate,
    DelegateRequest,
    Deployment,
    Device,
    HostedCallback,
    LocalCallback,
    Location,
    Result,
    Secret,
    SoapCallback,
)
from delegator.outbound import Outbound
from pki.pair import Pair
from pki.trust import TrustStore

ROOT = Path(__file__).parents[2]
UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
REQUEST = DelegateRequest("c" * 32, Device("ABC1234"), Location())
SOAP = Delegate("acme-1", "acme", SoapCallback("delegate.acme.example"))
HOSTED = Delegate("acme-2", "acme", HostedCallback("root", Secret("x")))


def needs() -> calling.Needs:
    shows = DelegatorError(Kind.CONFIGURATION, "no certificate")
    return calling.Needs(CallbackSettings(), lambda: cast(Pair, shows), lambda: cast(TrustStore, None), Outbound,
                         lambda: UNTIL)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the module of a way one that does not load."""
    found = importlib.import_module

    def breaking(name: str) -> None:
        def load(module: str, package: str | None = None) -> Any:
            if module == f"delegator.callbacks.{name}":
                raise ImportError("No module named 'zeppelin'")
            return found(module, package)
        monkeypatch.setattr(importlib, "import_module", load)
    return breaking


@pytest.mark.parametrize("way", CallbackWay)
def test_a7_each_way_is_a_file_of_values_and_a_file_that_calls(way: CallbackWay) -> None:
    assert WAYS[way].way is way
    assert WAYS[way].__module__ == f"delegator.model.ways.{way.value}"
    module = calling.way(way)
    assert all(callable(getattr(module, name)) for name in ("reach", "check", "remarks", "lacking"))
    assert (way in calling.AT_HAND) is not hasattr(module, "caller")


@pytest.mark.parametrize("way", CallbackWay)
def test_a7_an_option_says_a_field_that_there_is(way: CallbackWay) -> None:
    fields = {one.name: one for one in msgspec.structs.fields(WAYS[way])}
    said = {one.field for one in WAYS[way].said if one.fill is None}
    assert said <= set(fields)
    assert set(WAYS[way].forms) == set(fields), "each field, so that files and requests can say it"
    assert {one for pair in WAYS[way].together.items() for one in pair} <= set(fields)
    assert len([one for one in WAYS[way].said if one.fill is not None]) in (1, 2)
    assert all(not fields[one.field].required for one in WAYS[way].said if one.unset), "a field that must be there"


async def test_a7_a_way_that_does_not_load_refuses_itself_and_nobody_else(
        broken: Callable[[str], None], caplog: pytest.LogCaptureFixture) -> None:
    broken("soap")
    callers = calling.callers(needs())
    assert set(callers) == set(CallbackWay) - set(calling.AT_HAND)
    callbacks = Callbacks(callers, Guard(Limits()))
    for _ in range(2):
        with pytest.raises(DelegatorError, match=r"callback soap does not load here: .*'zeppelin'") as told:
            await callbacks.obtain(REQUEST, SOAP, UNTIL)
        assert told.value.kind is Kind.UNREACHABLE
    with pytest.raises(DelegatorError, match="zeppelin"):
        await callbacks.notify(Deployment("c" * 32, Result.DEPLOYED), SOAP)
    assert callbacks.at_hand(HOSTED, REQUEST, UNTIL) is not None
    assert "callback soap does not load here" in caplog.text
    callbacks.close()


def test_a7_settings_that_are_wrong_refuse_the_start_all_the_same() -> None:
    wrong = CallbackSettings(local_user="nobody-of-that-name")
    with pytest.raises(DelegatorError, match="nobody-of-that-name") as told:
        calling.callers(calling.Needs(wrong, needs().shows, needs().trust, Outbound, lambda: UNTIL))
    assert told.value.kind is Kind.CONFIGURATION


async def test_a7_a_folder_that_is_gone_is_told_as_what_is_wrong_here(tmp_path: Path) -> None:
    gone = Delegate("acme-3", "acme", LocalCallback(str(tmp_path / "gone"), python="acme:credential"))
    with pytest.raises(DelegatorError, match="is not a folder") as told:
        await calling.way(gone.way).reach(gone, needs())
    assert told.value.kind is Kind.CONFIGURATION


def test_a7b_what_is_missing_is_known_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [way for way in CallbackWay if calling.lacking(way) is not None] == []
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    (ssh,) = [way for way in CallbackWay if calling.lacking(way) is not None]
    assert ssh is CallbackWay.SSH
    why = calling.lacking(ssh)
    assert why is not None
    assert "the extra `ssh` is not installed here" in why.detail
    assert "pip install" in why.hint


def test_a7b_looking_for_it_loads_nothing() -> None:
    """Half a second, for a command that only lists."""
    program = ("import sys; from delegator.callbacks import calling; from delegator.model import CallbackWay; "
               "[calling.lacking(way) for way in CallbackWay]; sys.exit('asyncssh' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


NAMED = "|".join(reached.__name__.removesuffix("Callback") for reached in WAYS.values())
KNOW_ONE = re.compile(rf"\b(?:{NAMED})(?:Callback|Caller)\b|\bCallbackWay\.[A-Z]+\b")
KNOWING = {
    *(f"model/ways/{way.value}.py" for way in CallbackWay), *(f"callbacks/{way.value}.py" for way in CallbackWay),
    "model/ways/__init__.py", "model/__init__.py", "callbacks/calling.py", "callbacks/ssh_session.py",
    "domains.py",  # a delegate found by the DNS is a server
    "desk/forms.py",  # HOST:PORT/path of a server
    "demo/world.py"}
"""Who may know one way from another."""


def test_a7_nobody_else_knows_one_way_from_another() -> None:
    product = ROOT / "delegator"
    found = {path.relative_to(product).as_posix() for path in product.rglob("*.py")
             if KNOW_ONE.search(path.read_text(encoding="utf-8"))}
    assert found == KNOWING
