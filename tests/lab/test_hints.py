"""Hints that a device says and that are not of their form: left out, told to operators, never a refusal; and the
address that the service is described at."""

from __future__ import annotations

from typing import cast

from delegator.net.connection import Connection
from delegator.trail import LEFT_OUT
from delegator.wire.http import Request

from .lab import Lab, Wire

TAG = "ABC1234"


async def test_every_hint_that_was_left_out_stands_in_the_trail(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG, serial="!!", macs=("nonsense",))
    assert reply.status == 200
    assert reply.trail.facts[LEFT_OUT] == (
        "SerialNumber '!!' is not of its form; MacAddress 'nonsense' is not of its form")
    assert LEFT_OUT not in (await lab.ask(TAG, serial="S1")).trail.facts


async def test_without_a_word_of_the_caller_the_wsdl_says_where_we_are(lab: Lab) -> None:
    async def told(**headers: str) -> bytes:
        request = Request("GET", "/?wsdl", {name.encode(): said.encode() for name, said in headers.items()}, b"", False)
        response = await lab.server.answer(request, cast(Connection, Wire(None)))
        assert response.status == 200
        return response.body
    assert b'"https://here.example:4433/"' in await told()
    assert b'"https://there.example/"' in await told(host="there.example")
    lab.serve(url="https://said.example/x")
    assert b'"https://said.example/x"' in await told(host="there.example")
