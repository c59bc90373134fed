"""A7a, examples/delegate_minimal.py: what a customer starts from speaks with the delegator as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from delegator.errors import DelegatorError

EXAMPLE = Path(__file__).parents[2] / "examples" / "delegate_minimal.py"


@pytest.fixture
def start(party, tmp_path):
    children = []

    def run() -> tuple[subprocess.Popen[str], int]:
        certificate, key = party.delegate
        child = subprocess.Popen(
            [sys.executable, "-I", EXAMPLE, "--certificate", certificate, "--key", key, "--ca", party.factory_ca,
             "--delegator", "delegator.test", "--host", "127.0.0.1", "--port", "0",
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


async def test_a7a_the_minimal_delegate_checks_the_callers_name(start, client, device):
    own = device("SRV0001")
    caller = client(start()[1])
    assert caller.request("POST", "/", {}, b"<x/>", (own.certificate_path, own.key_path)).status == 403
    with pytest.raises(OSError):
        caller.request("POST", "/", {}, b"<x/>")
