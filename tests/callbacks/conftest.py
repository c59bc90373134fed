"""What the tests of callbacks share: a device's request, and the world of delegates that are programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from delegator.model import DelegateRequest, Device, Location

from .sshd import Sshd

CLAIM = "0123456789abcdef" * 2


def asked(tag: str = "ABC1234", said: str | None = "192.0.2.7", peer: str = "198.51.100.9") -> DelegateRequest:
    """What a delegate is asked when a device came."""
    return DelegateRequest(CLAIM, Device(tag, "SN-1", ("00:1A:2B:3C:4D:5E",), "R760"), Location(said), peer)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One server for all tests that leave it as it is; `SetEnv` keeps the example's state out of the home folder."""
    root: Path = tmp_path_factory.mktemp("sshd")
    server = Sshd(root, extra=f"SetEnv GETCRED_STATE={root}/state GETCRED_OWNED={root}/owned\n")
    server.start()
    yield server
    server.stop()
