"""Where most pages begin: a delegator that runs as the operators' page says, an owner as the customers' page says.

Pages are combined here as readers combine them: what stands on one comes before what stands on the next.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .reader import borrowed
from .reading import blocks_of
from .scene import PROJECT, Scene, free_port

OPERATORS, CUSTOMERS = "docs/operators.md", "docs/customers.md"


def block(page: str, start: str) -> str:
    (found,) = (one for one in blocks_of(page) if one.text.startswith(start))
    return found.text


def begin(scene: Scene, done_before: Path) -> None:
    """From an empty folder to a delegator that serves, by the operators' page. The first scene types its first start,
    which takes seconds; the others begin in a copy of that folder."""
    if not done_before.exists():
        borrowed(scene, OPERATORS, "python -m pki init --name")
        shutil.copytree(scene.folder, done_before, ignore=shutil.ignore_patterns(*PROJECT))
    else:
        shutil.copytree(done_before, scene.folder, dirs_exist_ok=True)
    serve(scene)


def serve(scene: Scene) -> None:
    scene.serve("delegator", block(OPERATORS, "delegator serve"), scene.port)


def owner(scene: Scene) -> None:
    """An owner's authority, certificate and documents, by the customers' page; its delegate will be on this machine."""
    scene.words |= {"delegate.acme.example:8443": f"localhost:{free_port()}", "delegate.acme.example": "localhost",
                    "start.acme.example": "localhost"}
    borrowed(scene, CUSTOMERS, "openssl req -x509")
    borrowed(scene, CUSTOMERS, "mkdir -p provisioning")
    scene.run("cp var/pki/ca.crt factory-ca.crt")


def delegate_port(scene: Scene) -> int:
    return int(scene.words["delegate.acme.example:8443"].rpartition(":")[2])


def delegate(scene: Scene) -> None:
    """The reference delegate, by the customers' page."""
    scene.serve("delegate", block(CUSTOMERS, "delegator delegate serve"), delegate_port(scene),
                DELEGATE_DELEGATE__HOST="127.0.0.1", DELEGATE_DELEGATE__PORT=str(delegate_port(scene)))


def registered(scene: Scene) -> None:
    """Acme with its policy, its delegate, device ABC1234 and order 4711, by the customers' page."""
    borrowed(scene, CUSTOMERS, "delegator policies add acme-rollout")
