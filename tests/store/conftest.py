"""What the store's contract is run on and with: databases, a clock that is told the time, asks to make.

Everything in this folder but test_sqlite*, test_postgres* and test_migrate is the contract: it knows no driver and is
run on every engine in DATABASES: PostgreSQL where it is installed, else these tests are skipped and say so.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from delegator import config
from delegator.model import (
    Customer,
    Delegate,
    HostedCallback,
    Identity,
    IdentityKind,
    Policy,
    Secret,
    SoapCallback,
)
from delegator.policy import Applied
from delegator.sealing import SealingKey
from delegator.store import Ask, Store, milliseconds, open_named

from ..clock import today
from ..postgres import Cluster

START = datetime(2026, 1, 1, tzinfo=UTC)
Opening = Callable[[], Awaitable[Store]]
_NO_CASE = SimpleNamespace(params={})
Database = Callable[[], AbstractAsyncContextManager[Opening]]


@asynccontextmanager
async def opened_at(where: config.Store, key: SealingKey) -> AsyncIterator[Opening]:
    """Every call opens one more Store on a database, and all are closed at the end."""
    opened: list[Store] = []

    async def opening() -> Store:
        opened.append(await open_named(where, key))
        return opened[-1]

    try:
        yield opening
    finally:
        for store in opened:
            await store.close()


def embedded(folder: Path) -> config.Store:
    return config.Store(path=str(folder / "delegator.db"))


def on(cluster: Cluster, name: str) -> config.Store:
    return config.Store(url=cluster.url(name), connections=4)


@asynccontextmanager
async def postgres_database(cluster: Cluster, key: SealingKey) -> AsyncIterator[Opening]:
    with cluster.lent() as name:
        async with opened_at(on(cluster, name), key) as opening:
            yield opening


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.counterpart("initdb"))]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PostgreSQL `make test` runs every test of the contract with the first of its cases, as a database there costs
    five times what a file does. The further cases differ in values, not in what the engine must do; they are slow."""
    begun: set[tuple[object, ...]] = set()
    for item in items:
        if "postgresql" in getattr(item, "callspec", _NO_CASE).params.values():
            test = item.path, getattr(item, "cls", None), getattr(item, "originalname", item.name)
            if test in begun:
                item.add_marker(pytest.mark.slow)
            begun.add(test)


@pytest.fixture
def key() -> SealingKey:
    return SealingKey(b"k" * 32)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path, key: SealingKey) -> Database:
    """Makes a fresh database, for tests that bring their own loop."""
    if request.param == "sqlite":
        return lambda: opened_at(embedded(tmp_path), key)
    cluster: Cluster = request.getfixturevalue("postgres_quick")
    return lambda: postgres_database(cluster, key)


@pytest.fixture(params=DATABASES)
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[config.Store]:
    """A fresh database, for tests that open it themselves."""
    if request.param == "sqlite":
        yield embedded(tmp_path)
        return
    cluster: Cluster = request.getfixturevalue("postgres_quick")
    with cluster.lent() as name:
        yield on(cluster, name)


@pytest.fixture(params=DATABASES)
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> config.Store:
    """A database that does not even hold a schema."""
    if request.param == "sqlite":
        return embedded(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgres_quick")
    return on(cluster, cluster.database(template="template0"))


@pytest.fixture
async def opening_empty(nowhere: config.Store, key: SealingKey) -> AsyncIterator[Opening]:
    async with opened_at(nowhere, key) as opening:
        yield opening


@pytest.fixture
def as_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Within it a store that is opened has no later schema than this one, as with the release of that time."""
    module = sys.modules["delegator.store.migrate"]
    known = module.schema_files

    @contextmanager
    def as_of(number: int) -> Iterator[None]:
        with monkeypatch.context() as earlier:
            earlier.setattr(module, "schema_files", lambda *said: [one for one in known(*said) if one.number <= number])
            yield
    return as_of


@pytest.fixture
async def opening(database: Database) -> AsyncIterator[Opening]:
    async with database() as opening:
        yield opening


@pytest.fixture
async def opening_sqlite(tmp_path: Path, key: SealingKey) -> AsyncIterator[Opening]:
    """For what only SQLite promises: opens the file `delegator.db` of this test, as often as wanted."""
    async with opened_at(embedded(tmp_path), key) as opening:
        yield opening


@pytest.fixture
async def store(opening: Opening) -> Store:
    return await opening()


@pytest.fixture
async def shop(store: Store) -> Store:
    """A store with two customers: acme has a hosted and a SOAP delegate, umbra a SOAP delegate."""
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.add_customer(Customer("umbra", "Umbra"), today())
    await store.add_delegate(Delegate("acme-hosted", "acme", HostedCallback("root", Secret("{random}"))), today())
    await store.add_delegate(Delegate("acme-soap", "acme", SoapCallback("d.acme.example")), today())
    await store.add_delegate(Delegate("umbra-soap", "umbra", SoapCallback("d.umbra.example")), today())
    return store


def _at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def _ask(tag: str = "ABC1234", by: str = "key:one", *, minute: float = 0, customer: str = "acme",
         delegate: str = "acme-1", policy: Policy | None = None, of_delegate: Policy | None = None,
         kind: IdentityKind = IdentityKind.OWN, busy: float = 1, lease: float = 60,
         since: int = 0) -> Ask:
    """An ask at a minute; its callback may take one minute and its lease is an hour, where not told otherwise."""
    policies = (Applied(policy or Policy(), f"customer/{customer}"),)
    if of_delegate is not None:
        policies += (Applied(of_delegate, f"delegate/{delegate}"),)
    return Ask(
        claim_id=f"{milliseconds(_at(minute)):012x}{secrets.token_hex(10)}",
        identity=Identity(kind, tag, by), customer=customer, delegate=delegate, peer="192.0.2.7",
        now=milliseconds(_at(minute)), busy_until=milliseconds(_at(minute + busy)),
        lease_until=milliseconds(_at(minute + lease)),
        policies=policies, since=since)


@pytest.fixture
def at() -> Callable[[float], datetime]:
    """The time some minutes after the start of the test's world."""
    return _at


@pytest.fixture
def ask() -> Callable[..., Ask]:
    return _ask
