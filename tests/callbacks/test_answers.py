"""What a customer's program may answer, and that nothing else passes or is shown. T-C10, T-B3."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delegator.callbacks.answers import MAX_OUTPUT, NotAnAnswer, credential_in, first_line
from delegator.model import Credential, Secret
from delegator.wire.xml import NotXml, escape

TAG, PASSWORD = "ABC1234", "pa&ss<w>or\"d'"
NS = ' xmlns="urn:delegator:provisioning:1"'
INNER = "<UserName>temp</UserName><Password>pa&amp;ss&lt;w>or\"d'</Password>"
WHOLE = Credential("temp", Secret(PASSWORD))
UNTIL = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize("output", [
    f"<Credential{NS}>{INNER}</Credential>",
    f"<Credential>{INNER}</Credential>",
    f'\n\n<?xml version="1.0" encoding="UTF-8"?>\n<d:Credential xmlns:d="urn:delegator:provisioning:1">'
    f'{INNER.replace("<U", "<d:U").replace("</U", "</d:U").replace("<P", "<d:P").replace("</P", "</d:P")}'
    "</d:Credential>\r\n",
    f"<Credential><ServiceTag> {TAG} </ServiceTag>{INNER}</Credential>",
    json.dumps({"user_name": "temp", "password": PASSWORD}),
    "\ufeff" + json.dumps({"user_name": "temp", "password": PASSWORD}) + "\r\n",
    f"\ufeff<Credential>{INNER}</Credential>\r\n",
    "\n" + json.dumps({"user_name": "temp", "password": PASSWORD, "service_tag": TAG, "not_after": None}, indent=1),
])
def test_a7b_a7d_xml_with_or_without_our_namespace_and_json_say_the_same(output: str) -> None:
    assert credential_in(output.encode(), TAG) == WHOLE


@pytest.mark.parametrize("moment", ["2026-03-01T08:00:00Z", "2026-03-01T09:00:00+01:00"])
def test_a7b_the_expiry_needs_its_zone(moment: str) -> None:
    written = f"<Credential>{INNER}<NotAfter>\n {moment} </NotAfter></Credential>"
    assert credential_in(written.encode(), TAG).not_after == UNTIL
    with pytest.raises(NotAnAnswer):
        credential_in(written.replace("Z", "").replace("+01:00", "").encode(), TAG)


@pytest.mark.parametrize("output", [
    f"<Credential><ServiceTag>ABC1235</ServiceTag>{INNER}</Credential>",
    json.dumps({"user_name": "temp", "password": PASSWORD, "service_tag": "abc1234"})])
def test_TB3_an_answer_for_another_device_is_refused(output: str) -> None:
    with pytest.raises(NotAnAnswer, match="another device than ABC1234"):
        credential_in(output.encode(), TAG)


SECRET = "hunter2-Plant3d"


@pytest.mark.parametrize(("output", "why"), [
    ("", "nothing on standard output"), ("  \n", "nothing on standard output"),
    (SECRET, "neither XML nor JSON"), (f"root:{SECRET}", "neither XML nor JSON"),
    (f"\ufeff\ufeff<{SECRET}/>", "neither"),
    (f"<!DOCTYPE {SECRET}><Credential/>", "not taken"), (f"<!--{SECRET}--><Credential/>", "not taken"),
    (f"<1{SECRET}/>", "not taken"), (f"<Credential>{SECRET}", "not taken"),
    (f"<Credential>{SECRET}</Credential>", "missing required field `user_name`"),
    (f"<Credentials><UserName>{SECRET}</UserName></Credentials>", "not a Credential"),
    (f'<Credential xmlns="urn:other">{INNER}</Credential>', "not a Credential"),
    (f'<Credential Password="{SECRET}">{INNER}</Credential>', "attributes"),
    (f"<Credential>{INNER}<Password>{SECRET}</Password></Credential>", "twice"),
    (f"<Credential>{INNER}<Note>{SECRET}</Note></Credential>", "nothing else"),
    (f"<Credential><UserName><b>{SECRET}</b></UserName></Credential>", "nothing else"),
    (f"<Credential><UserName>u</UserName><Password>{SECRET}<!-- --></Password></Credential>", "not taken"),
    (f"<Credential><UserName>u</UserName><Password>{SECRET}\n2</Password></Credential>", "control characters"),
    (f"<Credential><UserName>u\t</UserName><Password>{SECRET}</Password></Credential>", "control characters"),
    (f"<Credential><UserName></UserName><Password>{SECRET}</Password></Credential>", "1-255"),
    (f"<Credential><UserName>u</UserName><Password>{SECRET * 100}</Password></Credential>", "1-1024"),
    (f"<Credential>{INNER}<NotAfter>{SECRET}</NotAfter></Credential>", "RFC3339"),
    (f'{{"user_name": "u", "password": "{SECRET}"', "malformed|truncated"),
    (f'{{"user_name": "u", "password": "{SECRET}"}} {{}}', "malformed"),
    (f'{{"user_name": "u", "password": ["{SECRET}"]}}', r"Expected `str`, got `array` - at `\$.password`"),
    (f'{{"user_name": "u", "password": "{SECRET}", "role": "{SECRET}"}}', "unknown field `role`"),
    (f'{{"user_name": "u", "password": "{SECRET}\\u0000"}}', "control characters"),
    (f'{{"user_name": "u", "password": "{SECRET}\\ud800"}}', "."),
])
def test_TC10_any_other_answer_is_refused_with_its_reason_and_without_its_words(output: str, why: str) -> None:
    with pytest.raises(NotAnAnswer, match=why) as refused:
        credential_in(output.encode("utf-8"), TAG)
    assert "unter2" not in str(refused.value)


@given(st.binary(max_size=200))
@example(b"{}")
@example(b'{"user_name": "\xff"}')
@example(b"<Credential><UserName>\xff</UserName></Credential>")
def test_TC10_whatever_the_bytes_they_are_a_credential_or_refused(output: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        credential_in(output, TAG)


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_TC10_what_comes_through_is_what_was_written(user: str, password: str) -> None:
    try:
        wanted = Credential(user, Secret(password))
        output = f"<Credential><UserName>{escape(user)}</UserName><Password>{escape(password)}</Password></Credential>"
    except (ValueError, NotXml):
        return
    assert credential_in(output.encode(), TAG) == wanted
    assert credential_in(json.dumps({"user_name": user, "password": password}).encode(), TAG) == wanted


def test_TC10_the_limit_is_that_of_the_reader() -> None:
    with pytest.raises(NotAnAnswer, match="more than 65536 bytes"):
        credential_in(b"<Credential>" + b" " * MAX_OUTPUT + b"</Credential>", TAG)


@pytest.mark.parametrize(("errors", "line"), [
    (b"", ""), (b"\n  \nno such device\nmore", "no such device"), (b"\x1b[31mred\x07\n", r"\x1b[31mred\x07"),
    (b"\xff\xfe", r"\xff\xfe"), ("zürich\u2028next".encode(), "zürich"), (b"x" * 500, "x" * 197 + "...")])
def test_a7b_one_line_of_standard_error_goes_to_the_trail_and_moves_no_cursor(errors: bytes, line: str) -> None:
    assert first_line(errors) == line


def test_a7d_of_pythons_own_complaint_it_is_the_last_line() -> None:
    said = subprocess.run([sys.executable, "-c", "raise KeyError('tag')"], capture_output=True, check=False).stderr
    assert first_line(said) == "KeyError: 'tag'"


def test_an_answer_in_utf_16_is_told_to_be_that() -> None:
    with pytest.raises(NotAnAnswer, match="it is UTF-16"):
        credential_in(f"<Credential>{INNER}</Credential>".encode("utf-16"), TAG)
