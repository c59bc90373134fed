"""A lab for each test: two customers, three delegates, no device yet; and what is made once for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pki import Authority
from pki.keys import generate

from .lab import START, Lab, running

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """On a file system of memory, where there is one."""
    if not MEMORY.is_dir() or tmp_path_factory.getbasetemp().is_relative_to(MEMORY):
        yield tmp_path_factory.mktemp("lab")
        return
    with tempfile.TemporaryDirectory(prefix="lab-", dir=MEMORY) as name:
        yield Path(name)


async def furnish(lab: Lab) -> None:
    """Acme has a server of its own under policy `acme`; Globex's credential is kept here, Umbra has a server too."""
    await lab.policy("acme")
    await lab.customer("acme", policy="acme")
    await lab.customer("globex")
    await lab.customer("umbra")
    await lab.delegate("acme-1")
    await lab.delegate("globex-1", "globex", by="hosted")
    await lab.delegate("umbra-1", "umbra")


@pytest.fixture
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """As `furnish` leaves it, which is done once; each test has a copy."""
    template = folder / "template.db"
    if not template.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            async with running(template, Path(name)) as made:
                await furnish(made)
            (Path(name) / "delegator.db").rename(template)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        async with running(template, Path(name)) as lab:
            yield lab


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The factory's, as it signs online."""
    return Authority.found("Test Factory CA", None, generate(), START)
