"""The integrators' page in five languages: each client as the page shows it, against a delegator that refuses, puts off
and serves. SOAP, TLS and XML of the far side are none of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from delegator.model import ClaimState

from ..conftest import REQUIRED
from ..e2e.conftest import World
from .reading import ROOT, blocks_of

PAGE = "docs/integrators.md"
NODE_MODULES = ROOT / "var" / "node" / "node_modules"
"""Where `.ci/run` puts the package `soap`; by hand: npm install --prefix var/node soap@1.6.0."""


@dataclass(frozen=True)
class Stack:
    """The language of the page's block, the file that it is, how that is run, and what that takes. Where the page says
    in a block of shell commands how it is run, that one is run."""

    language: str
    file: str
    command: str
    programs: tuple[str, ...] = ()


STACKS = (
    Stack("python", "call.py", f"{sys.executable} call.py"),
    Stack("php", "call.php", "php call.php", ("php",)),
    Stack("csharp", "Call.cs", "", ("mono", "mcs", "wsdl", "cert-sync", "curl", "openssl")),
    Stack("js", "call.js", "node call.js", ("node",)),
    Stack("java", "Call.java", "", ("java", "javac", "openssl")),
)


class Integrator:
    """A folder as the page wants it: the device's files, the client that the page shows, and how to run it."""

    def __init__(self, world: World, stack: Stack, folder: Path) -> None:
        self.tag = f"STACK{stack.language.upper()}"
        certificate, key = world.paths(self.tag)
        files = (("device.crt", certificate), ("device.key", key), ("factory-ca.crt", world.factory.ca_path))
        for name, source in files:
            shutil.copy(source, folder / name)
        (client,) = (block for block in blocks_of(PAGE) if block.language == stack.language)
        shell = [block.text for block in blocks_of(PAGE) if (block.language, block.section) == ("sh", client.section)]
        assert bool(shell) is not bool(stack.command), "said once how it is run"
        (folder / stack.file).write_text(self._here(client.text, world))
        self._lines, self._folder = self._here("".join(shell) or stack.command, world), folder

    def _here(self, text: str, world: World) -> str:
        return text.replace("delegator.example.com:4433", f"localhost:{world.port}").replace("ABC1234", self.tag)

    def last_line(self) -> str:
        """What the client says in the end."""
        done = subprocess.run(["/bin/sh", "-ec", self._lines], cwd=self._folder, capture_output=True, text=True,
                              check=False, timeout=120, env={**os.environ, "HOME": str(self._folder)})
        assert done.returncode == 0, (self._lines, done.stdout, done.stderr)
        return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("stack", [pytest.param(one, id=one.language, marks=pytest.mark.counterpart(*one.programs))
                                   for one in STACKS])
def test_a3_each_client_of_the_page_is_refused_put_off_and_served(world: World, tmp_path: Path, stack: Stack) -> None:
    """A3: code and RetryAfter of a fault, then a credential and its confirmation."""
    folder = tmp_path / "integrator"
    folder.mkdir()
    if stack.language == "js":
        if not NODE_MODULES.is_dir():
            (pytest.fail if REQUIRED else pytest.skip)("next: npm install --prefix var/node soap@1.6.0")
        (folder / "node_modules").symlink_to(NODE_MODULES)
    world.start()
    integrator = Integrator(world, stack, folder)
    assert integrator.last_line() == "NotEntitled"
    world.own(integrator.tag)
    world.delegate.mode = "fault"
    assert integrator.last_line() == "TryLater 30"
    world.delegate.mode = "good"
    (claim,) = world.store(lambda store: store.claims())
    assert integrator.last_line() == f"temp {claim.claim_id}"
    (claim,) = world.store(lambda store: store.claims())
    assert claim.state is ClaimState.CONFIRMED
    asked, confirmed = world.trails(integrator.tag)[-2:]
    assert confirmed["operation"] == "ConfirmProvisioning"
    assert asked["connection"] == confirmed["connection"], "one TLS handshake for both"
