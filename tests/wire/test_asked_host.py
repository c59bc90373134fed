"""The address in the WSDL: what the caller used where that is in the form of an address, else our own; never less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from delegator.delegate.server import Server as DelegateServer
from delegator.doors.devices.soap import Server
from delegator.wire.certificate import host_of
from delegator.wire.http import Request, RequestReader
from pki import Folder
from pki.profiles import DELEGATOR_SERVER

HERE = "delegator.example:4433"
ODD = ["", " ", "a b", "x:99999", "user@host", 'h"><evil/>', "a,b", "[::1", "h/..", "h?x", "h\xe9", "my_host",
       "[::1]:0"]
KNOWN = [("delegator.example", "delegator.example"), ("LOCALHOST.:4433", "localhost:4433"),
         ("[::1]:4433", "[::1]:4433"), ("192.0.2.7", "192.0.2.7"), ("[::ffff:192.0.2.7]:1", "192.0.2.7:1")]


def servers(url: str) -> list[Any]:
    """The handlers of both ports that have a WSDL; nothing else of them is asked."""
    nothing: Any = None
    return [Server(nothing, nothing, url, lambda: HERE),
            DelegateServer(nothing, frozenset(), Path(), nothing, lifetime=nothing, url=url, here=lambda: HERE)]


async def locations(headers: dict[bytes, bytes], url: str = "") -> set[str]:
    found: set[str] = set()
    for server in servers(url):
        response = await server.answer(Request("GET", "/?wsdl", headers, b"", False), None)
        found |= {str(one) for one in etree.fromstring(response.body).xpath("//@location")}
    return found


@pytest.mark.parametrize("host", ODD)
async def test_a_host_in_no_form_of_one_is_not_told_on(host: str) -> None:
    assert await locations({b"host": host.encode("latin-1")}) == {f"https://{HERE}/"}


async def test_http_1_0_needs_no_host() -> None:
    (request,) = RequestReader().feed(b"GET /?wsdl HTTP/1.0\r\n\r\n")
    assert await locations(dict(request.headers)) == {f"https://{HERE}/"}


@pytest.mark.parametrize(("said", "told"), KNOWN)
async def test_what_the_caller_used_is_told_in_its_normal_form(said: str, told: str) -> None:
    assert await locations({b"host": said.encode()}) == {f"https://{told}/"}


async def test_what_is_set_is_told_whatever_the_caller_says() -> None:
    assert await locations({b"host": b"other.example"}, "https://set.example/") == {"https://set.example/"}
    assert await locations({}, "https://set.example/") == {"https://set.example/"}


@pytest.mark.parametrize(("names", "host"), [
    (("a.example", "b.example"), "a.example"), (("192.0.2.7",), "192.0.2.7"), (("::1",), "::1")])
def test_a_certificate_says_for_whom_it_is(names: tuple[str, ...], host: str, tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "pki", common_name="Test CA")
    issued = folder.issue(DELEGATOR_SERVER, names[0], names=names)
    assert host_of(issued.certificate) == host
