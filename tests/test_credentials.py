"""T-C10: one rule for credentials, wherever they come from. Each source is listed, and a new one is missed here."""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.callbacks import answers, hosted
from delegator.delegate import credentials
from delegator.desk import delegates
from delegator.device.answers import Credential as Shown
from delegator.device.answers import Limits, check_credential
from delegator.device.reasons import Failure
from delegator.errors import DelegatorError
from delegator.model import Credential, DelegateRequest, Device, HostedCallback, Secret
from delegator.provisioning.handshake import _credential
from delegator.wire import messages, soap
from delegator.wire.xml import NotXml, escape
from pki.said import is_harmful

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
ASKED = DelegateRequest("0" * 32, Device("ABC1234"))
ODD = ["\r\n", "\n", "\r", "\t", "\0", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f",
       "\u061c", "\u200b", "\u00ad", "\ufeff", "\U000e0041", "\ufffe", "\ud800"]
"""Line ends, controls, marks of direction, what nobody sees, what stands for nothing."""
Source = Callable[[str, str], Credential]


def by_soap(user: str, password: str) -> Credential:
    """The customer's own server. A carriage return comes as a reference, or a parser makes a line feed of it."""
    inner = "".join(f"<p:{name}>{escape(value).replace(chr(13), '&#13;')}</p:{name}>"
                    for name, value in (("UserName", user), ("Password", password)))
    body = ('<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:p="urn:delegator:provisioning:1">'
            f"<s:Body><p:RequestCredentialResponse><p:Credential>{inner}</p:Credential></p:RequestCredentialResponse>"
            "</s:Body></s:Envelope>")
    answer = messages.read_answer(messages.write(ASKED), soap.parse(body.encode()).operation)
    assert isinstance(answer, Credential)
    return answer


def by_program_in_json(user: str, password: str) -> Credential:
    """ssh and local read their programs by the same function."""
    return answers.credential_in(json.dumps({"user_name": user, "password": password}).encode(), "ABC1234")


def by_program_in_xml(user: str, password: str) -> Credential:
    inner = f"<UserName>{escape(user)}</UserName><Password>{escape(password)}</Password>".replace("\r", "&#13;")
    return answers.credential_in(f"<Credential>{inner}</Credential>".encode(), "ABC1234")


def by_settings_kept_here(user: str, password: str) -> Credential:
    """As rows of an older release may have them, or a copy that was restored."""
    return hosted.compose(ASKED, HostedCallback(user, Secret(password)), UNTIL)


def by_an_older_release(user: str, password: str) -> Credential:
    return _credential(json.dumps({"user_name": user, "password": password, "not_after": None}))


def by_the_administrator(user: str, password: str) -> Credential:
    """`delegates add` and `delegates change`."""
    delegates.check(HostedCallback(user, Secret(password)), {})
    return Credential(user, Secret(password))


SOURCES: list[Source] = [by_soap, by_program_in_json, by_program_in_xml, by_settings_kept_here, by_an_older_release,
                         by_the_administrator]
NO = (ValueError, DelegatorError, click.UsageError, NotXml)
"""What each door makes a refusal of; nothing else, which would be a fault of ours."""


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_TC10_what_nobody_means_in_a_credential_comes_from_nowhere(source: Source, odd: str) -> None:
    for user, password in ((f"ro{odd}ot", "Plant3d"), ("root", f"Pla{odd}nt3d")):
        with pytest.raises(NO) as refusal:
            source(user, password)
        assert "nt3d" not in str(refusal.value), "a refusal shows no password"


@pytest.mark.parametrize("source", SOURCES)
def test_TC10_what_people_type_comes_from_everywhere(source: Source) -> None:
    for user, password in (("root", "a b\u00a0c"), ("Jürgen", "пароль-密码-🔑"), ("a:b", " 'x' <&> ")):
        made = source(user, password)
        assert (made.user_name, made.password.reveal()) == (user, password)


@given(st.characters())
def test_TC10_the_device_has_the_same_rule(one: str) -> None:
    def fits() -> bool:
        try:
            check_credential(Shown("root", f"a{one}b"), Limits(), basic=True)
        except Failure:
            return False
        return True
    assert fits() is not is_harmful(one) or unicodedata.category(one) == "Cn"


def test_TC10_what_is_minted_is_fit() -> None:
    made = credentials.compose(UNTIL)
    assert not is_harmful(made.user_name + made.password.reveal())


MAKERS = {"provisioning/handshake.py", "callbacks/hosted.py", "callbacks/answers.py", "model/ways/hosted.py",
          "delegate/ledger.py",
          "delegate/credentials.py", "device/state.py", "device/answers.py"}
"""Who makes one by hand. The ledger gives what `compose` made; the device has a class of its own."""


def test_TC10_every_source_is_listed_here() -> None:
    root = Path(credentials.__file__).parent.parent
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") for node in ast.walk(
        ast.parse(path.read_text())) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Credential"}
    assert found == MAKERS
