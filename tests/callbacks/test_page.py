"""The commands of docs/callbacks.md, run as they stand there, end in delegates that answer. A7b, A7d."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delegator.callbacks.local import Allowance, LocalCaller
from delegator.callbacks.ssh import SshCaller
from delegator.model import CallbackKind, Customer, Delegate
from delegator.outbound import Outbound, networks
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.store import open_store
from pki import Folder

from .conftest import asked
from .sshd import GET_CRED, ROOT, Sshd

PAGE = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")


def _run(script: str, folder: Path) -> str:
    command = f'delegator() {{ {sys.executable} -m delegator "$@"; }}\n'
    done = subprocess.run(["/bin/sh", "-ec", command + script], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}, timeout=60)
    assert done.returncode == 0, (script, done.stderr)
    return done.stdout


async def _registered(folder: Path) -> list[Delegate]:
    store = await open_store(folder / "var/delegator.db", SealingKey(read_key_file(folder / "var/sealing.key")))
    try:
        if not (await store.tables()).customers:
            await store.add_customer(Customer("acme", "Acme"))
        return list((await store.tables()).directory.delegates.values())
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.counterpart("sshd", "ssh-keygen")
def test_a7b_a7d_what_the_page_tells_customers_works(tmp_path: Path, customer_ca: Folder) -> None:
    """Names, ports and folders are this test's; nothing else of a command is changed."""
    (tmp_path / "acme-ca.crt").write_bytes(customer_ca.ca_path.read_bytes())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in ("var", "sshd", "acme"):
        (tmp_path / name).mkdir()
    create_key_file(tmp_path / "var/sealing.key")
    (tmp_path / "delegator.toml").write_text('[outbound]\nallow = ["127.0.0.0/8"]\n')
    asyncio.run(_registered(tmp_path))
    sshd = Sshd(tmp_path / "sshd", extra=f"SetEnv GETCRED_STATE={tmp_path}/state GETCRED_OWNED={tmp_path}/owned\n")
    sshd.authorized_keys = tmp_path / ".ssh/authorized_keys"
    sshd.start()
    page = (PAGE.replace("delegator@delegate.acme.example:22", f"{sshd.user}@127.0.0.1:{sshd.port}")
            .replace("delegate.acme.example:22", f"127.0.0.1:{sshd.port}").replace("SHA256:...", sshd.fingerprint())
            .replace("/etc/ssh/ssh_host_ed25519_key.pub", "sshd/host_ed25519.pub")
            .replace("/opt/acme", f"{tmp_path}/acme").replace("/usr/local/bin/getCred", str(GET_CRED)))
    try:
        said = [_run(block, tmp_path) for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
        assert len(said) == 6
        assert sshd.fingerprint() in said[1]
        found = asyncio.run(_registered(tmp_path))
        assert {one.kind for one in found} == set(CallbackKind)
        ssh = SshCaller(Outbound(networks(("127.0.0.0/8",))))
        callers = {CallbackKind.SSH: ssh, CallbackKind.LOCAL: LocalCaller(Allowance())}
        users = {one.name: asyncio.run(callers[one.kind].obtain(asked(), one, datetime.now(UTC))).user_name
                 for one in found if one.kind in callers}
        assert users == {"acme-ssh": "temp-ABC1234", "acme-own": "setup-ABC1234", "acme-function": "setup-ABC1234"}
    finally:
        sshd.stop()
