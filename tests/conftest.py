"""What all tests share: OpenSSL as the product loads it, programs that are not ours, a factory and its devices."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from delegator import engine
from delegator.clockwork import loop

engine.load()
os.environ.setdefault(loop.VARIABLE, "asyncio")  # as it comes; with DELEGATOR_LOOP= all that serves is on uvloop
hypothesis.settings.register_profile(
    "patient", suppress_health_check=[hypothesis.HealthCheck.too_slow])  # a busy machine is no fault of a test's
hypothesis.settings.load_profile("patient")

from pki import Folder, Issued  # noqa: E402 - OpenSSL must be loaded with our settings first

from .beside import pytest_itemcollected  # noqa: E402, F401 - a hook
from .hanging import (  # noqa: E402, F401 - hooks
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_exception_interact,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    pytest_sessionfinish,
    pytest_timeout_set_timer,
    pytest_unconfigure,
)
from .postgres import IN_NO_DANGER, Cluster, running_cluster  # noqa: E402

REQUIRED = os.environ.get("COUNTERPARTS") == "required"
"""Set by .ci/run, which installs every counterpart: a missing one is a failure there."""


PLACES = ":".join([os.environ["PATH"], "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
"""Where programs that are not ours may be; Debian keeps PostgreSQL's out of PATH."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    programs = [program for mark in item.iter_markers("counterpart") for program in mark.args]
    missing = [program for program in programs if shutil.which(program, path=PLACES) is None]
    if missing:
        (pytest.fail if REQUIRED else pytest.skip)(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The manufacturer's authority, with the certificates every delegator has."""
    folder = Folder.create(tmp_path_factory.mktemp("factory") / "pki", common_name="Test Factory CA")
    folder.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"))
    folder.issue("delegate-client", "delegator.test")
    folder.issue("shared-device", "shared-device")
    return folder


@pytest.fixture(scope="session")
def customer_ca(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A customer's own authority: the factory never signed anything of it."""
    return Folder.create(tmp_path_factory.mktemp("customer") / "pki", common_name="Test Customer CA")


@pytest.fixture(scope="session")
def delegate_authority(customer_ca: Folder) -> Folder:
    """That authority, with the certificate of a delegate on this machine."""
    customer_ca.issue("delegate-server", "localhost", names=("127.0.0.1",))
    return customer_ca


@pytest.fixture(scope="session")
def device(factory: Folder) -> Callable[[str], Issued]:
    """The handshake certificate of a tag, minted once."""
    known: dict[str, Issued] = {}

    def of(tag: str) -> Issued:
        if tag not in known:
            known[tag] = factory.issue("device", tag)
        return known[tag]
    return of


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL of our own, with a template that holds the schema. For tests marked `counterpart("initdb")`."""
    with running_cluster() as cluster:
        cluster.with_schema()
        yield cluster


@pytest.fixture(scope="session")
def postgres_quick() -> Iterator[Cluster]:
    """One that does not wait for the disk, for what is tried with every change."""
    with running_cluster(**IN_NO_DANGER) as cluster:
        cluster.with_schema()
        yield cluster


@pytest.fixture(scope="session")
def shared(factory: Folder) -> tuple[Path, Path]:
    """Certificate and key that are the same in every device."""
    path = factory.certificate_path("shared-device", "shared-device")
    return path, path.with_suffix(".key")
