"""Simulation: the core of claims under a clock that moves when told and a store whose disk fails at any statement or
commit (R-durable).

The walk of test_claims_machine, with one rule more: something is done while the disk fails. The caller is told, the
model stays as it was, and so does the record: no half of a change, no row of audit, no place taken. Afterwards the
audit's chain is whole.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from delegator.errors import DelegatorError, Kind
from delegator.model import Registration, Result

from ..clock import today
from ..thorough import THOROUGH
from .conftest import embedded, opened_at
from .test_claims_machine import BUSY, LEASE, POLICY, ClaimsMachine, bindings, delegates, tags

STATEMENTS = 12
"""The disk fails at one of so many statements, or else at the commit. A claim at hand takes five."""


def broken() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


class FailingDisk:
    """A connection that fails at its nth statement. Undoing still works, as it does in SQLite."""

    def __init__(self, connection: sqlite3.Connection, at: int) -> None:
        self._connection, self._left = connection, at

    def execute(self, sql: str, parameters: tuple = ()) -> sqlite3.Cursor:
        if not self._left and sql != "ROLLBACK":
            raise broken()
        self._left -= 1
        return self._connection.execute(sql, parameters)


@contextmanager
def failing(store, at: int):
    """In here the disk fails at a statement, and at every commit."""
    driver = store._driver.driver
    connection, commit = driver._connection, driver._writer.commit

    async def fails() -> None:
        raise broken()

    driver._connection, driver._writer.commit = FailingDisk(connection, at), fails
    try:
        yield
    finally:
        driver._connection, driver._writer.commit = connection, commit


class FailingMachine(ClaimsMachine):
    """The same walk, and now and then the disk fails."""

    told = steps = 0

    @invariant()
    def a_step_is_counted(self) -> None:
        type(self).steps += 1

    @rule(data=st.data(), at=st.integers(0, STATEMENTS), tag=tags, by=bindings, delegate=delegates,
          result=st.sampled_from(Result))
    def the_disk_fails(self, data, at: int, tag: str, by: str, delegate: str, result: Result) -> None:
        ask = self.make(tag, by, minute=self.minute, delegate=delegate, policy=POLICY, busy=BUSY, lease=LEASE)
        claim_id = data.draw(st.sampled_from([*self.known, "0" * 32]))
        store, now = self.store, self.at(self.minute)
        work = data.draw(st.sampled_from([
            lambda: store.open_claim(ask), lambda: store.open_and_issue(ask, lambda claim: f"for {by}"),
            lambda: store.issue(claim_id, f"for {by}", now), lambda: store.pause(claim_id), store.pause_all,
            lambda: store.confirm(claim_id, by, result, "disk", now), lambda: store.expire_lapsed(now),
            lambda: store.ownership.release(tag, now), lambda: store.ownership.give_back([tag], "returned", now),
            lambda: store.ownership.repair(tag, None, now, None, "broken"),
            lambda: store.add_devices([Registration("umbra", tag)], today(), replace=True)]))
        with failing(store, at), pytest.raises(DelegatorError) as told:  # no success, as nothing could be written
            self.run(work())
        assert told.value.kind is Kind.UNAVAILABLE
        type(self).told += 1

    def teardown(self) -> None:
        try:
            self.run(self.chain_is_whole())
        finally:
            super().teardown()

    async def chain_is_whole(self) -> None:
        verification = self.store.audit.verification()
        async for _ in verification.run():
            pass
        assert verification.findings == []


def walk(key, ask, at, *, least: int, examples: int, steps: int) -> None:
    """At least so many steps, some examples after the other. Each has a database of its own, in memory where that can
    be: an fsync proves nothing here, and takes most of the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:

        def machine() -> FailingMachine:
            for path in Path(place).iterdir():
                path.unlink()
            return FailingMachine(lambda: opened_at(embedded(Path(place)), key), ask, at)

        FailingMachine.told = FailingMachine.steps = 0
        enough = max(5, least // 100) + 1  # chance may choose the disk seldom
        while FailingMachine.steps < least or FailingMachine.told < enough:
            run_state_machine_as_test(machine, settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
                suppress_health_check=list(HealthCheck)))


def test_R_durable_a_disk_that_fails_at_any_statement_changes_nothing(key, ask, at):
    walk(key, ask, at, least=50, examples=10, steps=25)
    assert FailingMachine.told >= 5


@pytest.mark.slow
def test_R_durable_a_long_walk_under_a_failing_disk(key, ask, at):
    """A hundred thousand steps in `make proof`, a fiftieth of them otherwise."""
    least = 100_000 if THOROUGH else 2_000
    walk(key, ask, at, least=least, examples=25, steps=100)
    assert FailingMachine.told > least / 100
    print(f"{FailingMachine.steps} steps, {FailingMachine.told} failures")
