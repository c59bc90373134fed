"""Which slow tests may run beside others, in a process for each core, as all quick ones do: `-m "slow and beside"`.

What stands here asserts nothing about seconds, or waits for what must come many times as long as it takes, and has its
folders, ports and databases to itself; on a machine with other work it takes longer and is as right. Everything else
has the machine to itself, as it says how long a device waits, how much of a processor something costs, or fills the
machine on purpose.
The invariant: a test is not here because nobody thought of it; what is here is a choice.
Must not live here: what is slow (the tests' own marks).
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
ALONE = frozenset(f"store/{name}.py" for name in (
    "engines/sqlite/test_checkpoints", "engines/postgres/test_lost_databases", "engines/postgres/test_driver",
    "engines/postgres/test_trouble", "test_slow", "engines/sqlite/test_trouble"))
"""Of the folders below, files that take the time."""
BESIDE = (
    "cli/", "delegate/", "device/", "pages/", "pki/", "store/", "test_domains.py", "test_fuzz.py", "test_pipes.py",
    "test_supply.py", *(f"e2e/test_{name}.py" for name in (
        "addresses", "audit", "canaries", "certificates", "clocks", "crashes", "demo", "enrolment", "integrators",
        "ownership", "policies", "programs", "provisioning", "reload", "rollover", "serving", "several", "starting",
        "unattended")))
"""Folders and files. A test of another file may bear the mark itself."""


def pytest_itemcollected(item: pytest.Item) -> None:
    place = str(item.path.relative_to(ROOT))
    if place.startswith(BESIDE) and place not in ALONE:
        item.add_marker(pytest.mark.beside)
