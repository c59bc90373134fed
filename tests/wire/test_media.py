"""T-C2: which bodies are read, by what their head says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.wire.http import HttpError, Request, check_media
from delegator.wire.media import foreign

TAKEN = ["", "text/xml", "text/xml; charset=utf-8", 'text/xml; charset="utf-8"', "text/xml;charset=UTF-8",
         'TEXT/XML ; Charset="Utf-8"', "text/xml;", "application/xml", "application/xml; charset=us-ascii",
         "application/soap+xml; charset=utf-8", 'application/soap+xml; charset=utf-8; action="urn:x;charset=latin1"',
         "application/soap+xml;action=urn:delegator:provisioning:1/GetProvisioningCredential;charset=utf8",
         "application/x-www-form-urlencoded", "application/vnd.x+xml",
         'application/soap+xml; action="urn:\\"x"; charset="UTF-8"']
"""Axis, CXF, WCF, gSOAP, Zeep, SoapUI, .NET, and curl or wget in a shell send one of these."""
FOREIGN = ["application/json", "application/json; charset=utf-8", "text/json", "text/html", "text/plain", "*/*", "xml",
           "multipart/form-data; boundary=x", "application/octet-stream",
           'multipart/related; type="application/xop+xml"; boundary=x', "image/svg", "text/xml, application/json",
           "text/xml; charset=iso-8859-1", "text/xml; charset=utf-16", 'application/soap+xml; charset="UTF-7"',
           "text/xml; charset=utf-8; charset=utf-16", 'text/xml; a="x"; charset=windows-1252', "text/xml; charset=",
           "text/xml; charset=[", "application/xml-dtd", "text/xmlx", "+xml", "text/xml; CHARSET=EBCDIC", "\xff",
           "text/xml; x=" + "y" * 1000]


@pytest.mark.parametrize("said", TAKEN)
def test_TC2_what_soap_stacks_say_is_taken(said: str) -> None:
    assert foreign(said) == ""


@pytest.mark.parametrize("said", FOREIGN)
def test_TC2_what_is_plainly_something_else_is_not(said: str) -> None:
    assert foreign(said).isprintable()
    with pytest.raises(HttpError) as refusal:
        check_media(Request("POST", "/", {b"content-type": said.encode("latin-1")}, b"<a/>", True))
    assert refusal.value.status == 415


@pytest.mark.parametrize(("coding", "taken"), [("", True), ("identity", True), ("gzip", False), ("x, gzip", False)])
def test_TC2_nor_is_a_body_in_a_coding(coding: str, taken: bool) -> None:
    assert (foreign("text/xml", coding) == "") is taken


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.sampled_from(["text/xml", "application/soap+xml"]))
def test_TC2_whatever_follows_the_type_is_read_without_a_fault(rest: str, kind: str) -> None:
    why = foreign(f"{kind};{rest}")
    assert why.isprintable()
    assert not why or "charset" in rest.lower()
