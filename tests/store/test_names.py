"""Names for a shell to complete: few, quick, of either database, and nothing is written for them."""

from __future__ import annotations

import pytest

from delegator import config
from delegator.errors import DelegatorError
from delegator.model import Customer, Registration
from delegator.store import names, open_named

from ..clock import today


async def _fill(where: config.Store, key) -> None:
    store = await open_named(where, key)
    try:
        for name in ("acme", "acme_ltd".replace("_", "-"), "globex"):
            await store.add_customer(Customer(name, name), today())
        await store.add_devices([Registration("acme", "ABC1234", "sn-1"), Registration("acme", "ABD1234")], today())
    finally:
        await store.close()


def _check(where: config.Store) -> None:
    assert names.names(where, "customers", "ac") == ["acme", "acme-ltd"]
    assert names.names(where, "customers", "a%") == []
    assert names.names(where, "customers", "a_me") == []
    assert names.names(where, "devices", "ABC") == ["ABC1234"]
    assert names.names(where, "devices", "s") == ["sn-1"]
    assert names.names(where, "claims", "") == []


async def test_names_of_the_embedded_database(tmp_path, key):
    where = config.Store(path=str(tmp_path / "delegator.db"))
    await _fill(where, key)
    before = sorted(path.name for path in tmp_path.iterdir())
    _check(where)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.counterpart("initdb")
async def test_names_of_postgresql(postgres, key):
    import asyncio

    with postgres.lent() as name:
        where = config.Store(url=postgres.url(name))
        await _fill(where, key)
        await asyncio.to_thread(_check, where)


def test_without_a_database_it_is_an_error_that_the_shell_never_hears_of(tmp_path):
    with pytest.raises(Exception):  # noqa: B017 - whatever the engine says
        names.names(config.Store(path=str(tmp_path / "none.db")), "customers", "")
    with pytest.raises((OSError, DelegatorError, TimeoutError)):
        names.names(config.Store(url="postgresql://x@127.0.0.1:1/x"), "customers", "")
    assert list(tmp_path.iterdir()) == []
