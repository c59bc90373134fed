"""A8: provisioning data goes to the device that shows the credential, while it is in force, and to nobody else."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from datetime import timedelta

import pytest
from lxml import etree

from delegator.delegate import access, server
from delegator.device import answers
from delegator.device.fetching import fetch
from delegator.device.reasons import Failure
from delegator.errors import Kind
from delegator.model import Device, Result

OURS = "urn:delegator:provisioning:1"
TEMPLATE = (f"""<Provisioning xmlns="{OURS}" tag='{{tag}}'><!-- {{other}} --><S>{{serial}}</S><M>{{model}}</M>"""
            "</Provisioning>")


def said(got):
    """What tells two answers apart, but for the time."""
    return got.status, got.headers, got.body


async def test_a8_the_device_that_shows_its_credential_gets_its_data(inside, new_claim):
    (inside.data / "default.xml").write_text(TEMPLATE)
    given = await inside.client.ask("SRV0001", new_claim(), serial_number="SN-7", model="R1 (2)")
    for path in ("/provisioning", "/provisioning/", "/provisioning/SRV0001", "/provisioning?again=1"):
        got = await inside.client.fetch(given, path)
        root = etree.fromstring(got.body)
        assert (got.status, root.get("tag"), root[1].text, root[2].text) == (200, "SRV0001", "SN-7", "R1 (2)")
    assert got.headers["content-type"] == "text/xml"
    assert got.headers["cache-control"] == "no-store"


async def test_a8_a_file_of_its_own_is_served_as_it_stands(inside, new_claim):
    own = f'<Provisioning xmlns="{OURS}">{{tag}} \u00fc</Provisioning>'.encode()
    (inside.data / "SRV0001.xml").write_bytes(own)
    given = await inside.client.ask("SRV0001", new_claim())
    assert (await inside.client.fetch(given)).body == own


async def test_a8_megabytes_arrive_whole(inside, new_claim):
    large = f'<Provisioning xmlns="{OURS}">{"x" * 8_000_000}</Provisioning>'.encode()
    (inside.data / "SRV0001.xml").write_bytes(large)
    given = await inside.client.ask("SRV0001", new_claim())
    assert (await inside.client.fetch(given)).body == large


async def test_a8_without_a_folder_the_built_in_document_is_served(inside, new_claim):
    inside.data.rmdir()
    given = await inside.client.ask("SRV0001", new_claim())
    assert b"<ServiceTag>SRV0001</ServiceTag>" in (await inside.client.fetch(given)).body


async def test_a8_our_own_device_client_takes_what_is_served(inside, party, new_claim):
    given = await inside.client.ask("SRV0001", new_claim())
    shown = answers.Credential(given.user_name, given.password.reveal(), None)
    body = bytearray()
    await asyncio.to_thread(fetch, f"https://localhost:{inside.port}/provisioning", party.customer_ca.read_text(),
                            shown, 5.0, body.extend)
    assert b"<ServiceTag>SRV0001</ServiceTag>" in body
    wrong = answers.Credential(given.user_name, "wrong", None)
    with pytest.raises(Failure, match="401"):
        await asyncio.to_thread(fetch, f"https://localhost:{inside.port}/provisioning",
                                party.customer_ca.read_text(), wrong, 5.0, body.extend)


async def test_a8_a_folder_that_does_not_answer_costs_so_many_threads_and_nobody_else_a_moment(
        inside, new_claim, monkeypatch):
    given = await inside.client.ask("SRV0001", new_claim())
    answers_again, held = threading.Event(), []
    own = server.Server(inside.ledger, frozenset(), inside.data, inside.now, lifetime=timedelta(hours=1))

    def hanging(folder, device):
        answers_again.wait(20)
        return b"late"
    with monkeypatch.context() as patched:
        patched.setattr(server.provisioning, "document", hanging)
        patched.setattr(server, "READING", 0.05)
        try:
            got = await inside.client.fetch(given)
            assert (got.status, got.headers["retry-after"]) == (503, str(server.AGAIN))
            ended = await asyncio.gather(*(own._document(Device(f"TAG{number:05}")) for number in range(200)),
                                         return_exceptions=True)
            assert {one.kind for one in ended} == {Kind.UNAVAILABLE}
            held += [one for one in threading.enumerate() if one.name.startswith("aside: reading provisioning data")]
            assert len(held) == server.LANES
            assert all(one.daemon for one in held), "not even the end of the program waits for them"
            assert (await asyncio.to_thread(inside.client.request, "GET", "/?wsdl")).status == 200
            assert (await inside.client.ask("SRV0002", new_claim())).user_name
        finally:
            answers_again.set()
            for one in held:
                one.join()
    assert (await inside.client.fetch(given)).status == 200, "as soon as it answers again"


async def test_a8_fetching_is_remembered_from_its_first_time(inside, new_claim):
    given = await inside.client.ask("SRV0001", new_claim())
    assert (await inside.ledger.find(given.user_name)).fetched_at is None
    await inside.client.fetch(given)
    first = (await inside.ledger.find(given.user_name)).fetched_at
    assert first is not None
    inside.later = timedelta(hours=1)
    await inside.client.fetch(given)
    assert (await inside.ledger.find(given.user_name)).fetched_at == first


async def test_a8_nobody_else_gets_anything(inside, new_claim):
    """No credential, an unknown user, a wrong password, another device's: one answer, to the byte."""
    given = await inside.client.ask("SRV0001", new_claim())
    other = await inside.client.ask("SRV0002", new_claim())
    word = given.password.reveal()
    tries = [None, ("p-aaaaaaaaaa", word), (given.user_name, ""), (given.user_name, word[:-1]),
             (given.user_name, other.password.reveal()), (given.user_name.upper(), word), ("", "")]
    answers = [said(await inside.client.fetch(one)) for one in tries]
    assert {answer[0] for answer in answers} == {401}
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][1]["www-authenticate"].startswith("Basic ")


async def test_a8_another_devices_path_is_closed(inside, new_claim):
    given = await inside.client.ask("SRV0001", new_claim())
    await inside.client.ask("SRV0002", new_claim())
    known, unknown = [await inside.client.fetch(given, f"/provisioning/{tag}") for tag in ("SRV0002", "SRV0009")]
    assert known.status == 403
    assert said(known) == said(unknown)
    assert (await inside.client.fetch(given, "/provisioning/../../etc/passwd")).status == 403


@pytest.mark.parametrize("header", [
    "Bearer abc", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "basic"])
async def test_a8_other_authorization_is_none(inside, header):
    got = await asyncio.to_thread(inside.client.request, "GET", "/provisioning", {"Authorization": header})
    assert got.status == 401


async def test_a8_a_certificate_is_no_credential(inside, device, new_claim):
    await inside.client.ask("SRV0001", new_claim())
    own = device("SRV0001")
    got = await asyncio.to_thread(inside.client.request, "GET", "/provisioning/SRV0001", None, None,
                                  (own.certificate_path, own.key_path))
    assert got.status == 401


async def test_a8_an_expired_credential_is_none_and_is_wiped(inside, new_claim):
    claim = new_claim()
    given = await inside.client.ask("SRV0001", claim)
    inside.later = timedelta(hours=24, seconds=1)
    assert (await inside.client.fetch(given)).status == 401
    assert await inside.ledger.wipe(inside.now()) == 1
    assert (await inside.ledger.find(given.user_name)).sealed is None
    assert (await inside.client.ask("SRV0001", new_claim())) != given


async def test_a13_after_deployment_the_credential_works_for_a_short_grace(inside, new_claim):
    claim = new_claim()
    given = await inside.client.ask("SRV0001", claim)
    await inside.client.tell(claim)
    assert (await inside.client.fetch(given)).status == 200
    inside.later = timedelta(minutes=9)
    await inside.client.tell(claim)  # repeated, as a delegator does that got no answer: the grace does not grow
    inside.later = timedelta(minutes=10, seconds=1)
    assert (await inside.client.fetch(given)).status == 401
    await inside.ledger.wipe(inside.now())
    assert (await inside.ledger.find(given.user_name)).sealed is None


async def test_a8_after_a_failure_it_works_on(inside, new_claim):
    claim = new_claim()
    given = await inside.client.ask("SRV0001", claim)
    await inside.client.tell(claim, Result.FAILED)
    inside.later = timedelta(hours=23)
    assert (await inside.client.fetch(given)).status == 200


@pytest.mark.parametrize("content", [
    b"<Provisioning", b"", b"<Other/>", b"\xff\xfe\x00",
    f'<Provisioning xmlns="{OURS}">&secret;</Provisioning>'.encode(),
    f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/os-release">]><Provisioning xmlns="{OURS}"/>'.encode(),
])
@pytest.mark.parametrize("name", ["SRV0001.xml", "default.xml"])
async def test_a_broken_file_is_logged_and_nothing_of_it_leaves(inside, new_claim, caplog, name, content):
    (inside.data / name).write_bytes(content)
    given = await inside.client.ask("SRV0001", new_claim())
    with caplog.at_level(logging.ERROR):
        got = await inside.client.fetch(given)
    assert (got.status, got.body) == (500, b"the provisioning data is not available\n")
    assert name in caplog.text
    assert (await inside.ledger.find(given.user_name)).fetched_at is None


async def test_guesses_at_one_user_are_limited_and_the_right_one_waits_too(inside, new_claim):
    given = await inside.client.ask("SRV0001", new_claim())
    unknown = ("p-aaaaaaaaaa", "x")
    for guess in ((given.user_name, "x"), unknown):
        answers = [await inside.client.fetch(guess) for _ in range(access.PER_USER + 1)]
        assert [answer.status for answer in answers] == [401] * access.PER_USER + [429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= access.WINDOW
    assert (await inside.client.fetch(given)).status == 429


@pytest.mark.counterpart("curl")
async def test_a8_curl_fetches_with_the_credential(inside, curl, new_claim):
    given = await inside.client.ask("SRV0001", new_claim())
    url = f"https://localhost:{inside.port}/provisioning"
    status, body = await curl("--user", f"{given.user_name}:{given.password.reveal()}", url)
    assert (status, etree.fromstring(body.encode()).tag) == (200, f"{{{OURS}}}Provisioning")
    assert (await curl(url))[0] == 401
