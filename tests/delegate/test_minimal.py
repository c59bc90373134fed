"""A7a, examples/delegate_minimal.py: what a customer starts from speaks with the delegator as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from delegator.device import answers
from delegator.device.fetching import fetch
from delegator.errors import DelegatorError

EXAMPLE = Path(__file__).parents[2] / "examples" / "delegate_minimal.py"


@pytest.fixture
def start(party, tmp_path):
    children = []

    def run() -> tuple[subprocess.Popen[str], int]:
        certificate, key = party.delegate
        child = subprocess.Popen(
            [sys.executable, "-I", EXAMPLE, "--certificate", certificate, "--key", key, "--ca", party.factory_ca,
             "--delegator", "delegator.test", "--host", "127.0.0.1", "--port", "0", "--data", tmp_path / "provisioning",
             "--database", tmp_path / "claims.db"], stderr=subprocess.PIPE, text=True)
        children.append(child)
        return child, int(child.stderr.readline().rsplit(maxsplit=1)[1])
    yield run
    for child in children:
        child.kill()
        child.wait()
        child.stderr.close()


async def test_a7a_the_minimal_delegate_is_idempotent_across_kill_9(start, client, new_claim):
    claim, (child, port) = new_claim(), start()
    caller = client(port)
    given = await caller.ask("SRV0001", claim)
    assert given.not_after is not None
    assert await caller.ask("SRV0001", claim) == given
    assert await caller.ask("SRV0002", new_claim()) != given
    await caller.tell(claim)
    with pytest.raises(DelegatorError, match="HTTP 500"):
        await caller.ask("SRV0002", claim)
    child.kill()
    assert await client(start()[1]).ask("SRV0001", claim) == given


async def test_a7a_the_minimal_delegate_checks_the_callers_name(start, client, device, new_claim):
    """A device's certificate, and none at all, may not ask for credentials."""
    own = device("SRV0001")
    caller = client(start()[1])
    assert caller.request("POST", "/", {}, b"<x/>", (own.certificate_path, own.key_path)).status == 403
    assert caller.request("POST", "/", {}, b"<x/>").status == 403


async def test_a7a_a_device_without_a_certificate_fetches_its_document_with_its_credential(
        start, client, new_claim, party, tmp_path):
    """By our own device client and by any other; nobody else gets it, and nobody at all once it is deployed."""
    claim, caller = new_claim(), client(start()[1])
    given = await caller.ask("SRV0001", claim)
    other = await caller.ask("SRV0002", new_claim())
    body = bytearray()
    fetch(f"https://localhost:{caller.port}/provisioning", party.customer_ca.read_text(),
          answers.Credential(given.user_name, given.password.reveal(), None), 5.0, body.extend)
    assert b"<ServiceTag>SRV0001</ServiceTag>" in body
    (tmp_path / "provisioning").mkdir()
    (tmp_path / "provisioning" / "SRV0001.xml").write_text("<own/>")
    assert caller.get(given).body == b"<own/>"
    wrong = [None, (given.user_name, "wrong"), ("nobody", given.password.reveal()), ("", ""),
             (given.user_name, other.password.reveal())]
    refused = [caller.get(shown) for shown in wrong]
    assert {one.status for one in refused} == {401}
    assert {one.headers["www-authenticate"] for one in refused} == {'Basic realm="provisioning", charset="UTF-8"'}
    assert caller.request("GET", "/provisioning", {"Authorization": "Basic !!"}).status == 401
    assert caller.get(given, "/elsewhere").status == 404
    await caller.tell(claim)
    assert caller.get(given).status == 401
    assert caller.get(other).status == 200
