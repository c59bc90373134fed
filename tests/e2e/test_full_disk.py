"""A disk without room under a running delegator: told to devices and operators, and over once there is room (5, 8)."""

from __future__ import annotations

import resource
import time

from .conftest import World
from .operating import readyz, wait_for

ROOM = 4096
"""Bytes that a file may have then: less than the database has."""


def test_R_later_a_full_disk_is_told_and_within_five_seconds_of_its_end_all_is_as_before(watched: World) -> None:
    watched.host("FULL0001", "FULL0002")
    said = watched.start()
    kept = watched.ask("FULL0001").credential
    assert watched.process is not None
    pid = watched.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        reply = watched.ask("FULL0002")
        assert (reply.status, reply.fault) == (500, "Unavailable")
        status, told = readyz(said["ops"])
        assert (status, list(told["wrong"])) == (503, ["store"])
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    back = time.monotonic()
    assert wait_for(lambda: watched.ask("FULL0002").status == 200 and readyz(said["ops"])[0] == 200)
    assert time.monotonic() - back < 5
    assert watched.ask("FULL0001").credential == kept
    assert len(watched.store(lambda store: store.claims())) == 2
