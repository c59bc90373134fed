"""What the delegate remembers: who asked, what credential was given, whether it was used, how it ended.

The functions in the middle are transactions (see store.transaction); each states one rule.
The invariants: one claim id has one credential, and one tag at most one that is in force; the password exists only
sealed, and only while it may be used; a verb returns when what it did is on disk.
Must not live here: who may ask (access), what a credential looks like (credentials), the schema (schema/).
"""

# ruff: noqa: S608 - statements are put together from constants; every value travels as a parameter

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from delegator.delegate.access import same
from delegator.delegate.credentials import compose
from delegator.delegate.entries import COLUMNS, Entry, entry_of
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, DelegateRequest, Deployment, Result, Secret
from delegator.sealing import SealingKey
from delegator.store.engines.sqlite.driver import SqliteDriver, open_sqlite
from delegator.store.migrate import bring_up_to_date
from delegator.store.moments import milliseconds, moment
from delegator.store.transaction import Query, Row, Transaction

_SCHEMA = "delegator.delegate"
_FOREVER = 2**62


def _row_name(claim_id: str) -> str:
    return f"delegate/claims/{claim_id}"


# --- transactions -------------------------------------------------------------------------------------------------


def learn(request: DelegateRequest, user_name: str, sealed: bytes, now: int, not_after: int) -> Transaction[Entry]:
    """The entry of a claim: the one there is, or a new one, which makes the tag's older credential void. Raises
    DelegatorError (MALFORMED) when the claim is another device's, (NOT_ENTITLED) when its credential is over."""
    rows = yield Query(f"SELECT {COLUMNS} FROM claims WHERE claim_id = $1", (request.claim_id,))
    if rows:
        return _same_again(entry_of(rows[0]), request, now)
    device, place = request.device, request.location
    yield Query("UPDATE claims SET usable_until = min(usable_until, $2), sealed = NULL, voided = 1 "
                "WHERE service_tag = $1 AND sealed IS NOT NULL", (device.service_tag, now))
    rows = yield Query(
        "INSERT INTO claims (claim_id, service_tag, serial_number, model, mac_addresses, ip_address, host_name, "
        "domain, user_name, sealed, asked_at, not_after, usable_until) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) RETURNING {COLUMNS}",
        (request.claim_id, device.service_tag, device.serial_number, device.model, " ".join(device.mac_addresses),
         place.ip_address, place.host_name, place.domain, user_name, sealed, now, not_after))
    return entry_of(rows[0])


def _same_again(entry: Entry, request: DelegateRequest, now: int) -> Entry:
    if entry.device.service_tag != request.device.service_tag:
        raise DelegatorError(Kind.MALFORMED, f"claim {request.claim_id} is of {entry.device.service_tag}, "
                                             f"not of {request.device.service_tag}")
    if not entry.usable(moment(now)):
        raise DelegatorError(Kind.NOT_ENTITLED, f"the credential of claim {request.claim_id} is "
                                                f"{entry.standing(moment(now)).value}")
    return entry


def conclude(deployment: Deployment, now: int, last_use: int) -> Transaction[Entry | None]:
    """How provisioning ended. Deployed is final and ends the credential at `last_use`; Failed may be followed by
    another try. None when the claim is unknown."""
    deployed = deployment.result is Result.DEPLOYED
    yield Query(
        "UPDATE claims SET result = $2, detail = $3, ended_at = $4, usable_until = min(usable_until, $5) "
        "WHERE claim_id = $1 AND result IS NOT $6 RETURNING claim_id",
        (deployment.claim_id, deployment.result.value, deployment.detail, now,
         last_use if deployed else _FOREVER, Result.DEPLOYED.value))
    rows = yield Query(f"SELECT {COLUMNS} FROM claims WHERE claim_id = $1", (deployment.claim_id,))
    return entry_of(rows[0]) if rows else None


def fetched(claim_id: str, now: int) -> Transaction[None]:
    """The device showed its credential; the first time counts."""
    yield Query("UPDATE claims SET fetched_at = $2 WHERE claim_id = $1 AND fetched_at IS NULL", (claim_id, now))


def wipe(now: int) -> Transaction[int]:
    """Forget passwords that nobody may use any more; how many."""
    rows = yield Query("UPDATE claims SET sealed = NULL WHERE sealed IS NOT NULL AND usable_until <= $1 "
                       "RETURNING claim_id", (now,))
    return len(rows)


def _decoy(key: SealingKey) -> Row:
    """A row with a password that nobody knows and whose time never was: what a user name has that nobody has."""
    claim_id = "0" * 32
    password = compose(moment(0)).password.reveal()
    return (claim_id, "DECOY", "SN-0", "Model 0", "02:00:00:00:00:00", "192.0.2.1", None, None, "", 0, 0, 0, 1, None,
            None, None, None, key.seal(password, _row_name(claim_id)))


# --- verbs --------------------------------------------------------------------------------------------------------


class Ledger:
    """The ledger file. Make it with `open_ledger`."""

    def __init__(self, driver: SqliteDriver, key: SealingKey, grace: timedelta) -> None:
        self._driver = driver
        self._key = key
        self._grace = grace
        self._decoy = _decoy(key)
        self._nobody = entry_of(self._decoy)

    async def learn(self, request: DelegateRequest, fresh: Credential, now: datetime) -> Credential:
        """The credential of a claim: `fresh`, or the one it already has. Raises DelegatorError, see `learn`."""
        assert fresh.not_after is not None
        until = milliseconds(fresh.not_after)
        sealed = self._key.seal(fresh.password.reveal(), _row_name(request.claim_id))
        entry = await self._driver.run(lambda: learn(request, fresh.user_name, sealed, milliseconds(now), until))
        return Credential(entry.user_name, self.password(entry), entry.not_after)

    def password(self, entry: Entry) -> Secret:
        """Raises DelegatorError (UNAVAILABLE) where it was wiped or does not open."""
        if entry.sealed is None:
            raise DelegatorError(Kind.UNAVAILABLE, f"claim {entry.claim_id} holds no credential any more")
        return Secret(self._key.open(entry.sealed, _row_name(entry.claim_id)))

    async def find(self, user_name: str) -> Entry:
        """The entry of a user name, or the decoy, so that both cost the same (measured: without it 45 us less)."""
        rows = await self._driver.read(Query(f"SELECT {COLUMNS} FROM claims WHERE user_name = $1", (user_name,)))
        return entry_of(rows[0] if rows else self._decoy)

    def is_password(self, entry: Entry, shown: Secret, now: datetime) -> bool:
        """Whether this entry is in force and this its password, in the same steps whatever the answer."""
        usable = entry.usable(now)
        fits = same(self.password(entry if usable else self._nobody), shown)
        return usable and fits

    async def fetched(self, entry: Entry, now: datetime) -> None:
        if entry.fetched_at is None:
            await self._driver.run(lambda: fetched(entry.claim_id, milliseconds(now)))

    async def conclude(self, deployment: Deployment, now: datetime) -> Entry | None:
        last_use = milliseconds(now + self._grace)
        return await self._driver.run(lambda: conclude(deployment, milliseconds(now), last_use))

    async def wipe(self, now: datetime) -> int:
        return await self._driver.run(lambda: wipe(milliseconds(now)))

    async def close(self) -> None:
        await self._driver.close()


async def _opened(path: Path) -> SqliteDriver:
    driver = await open_sqlite(path)
    try:
        await bring_up_to_date(driver, _SCHEMA)
    except BaseException:
        await driver.close()
        raise
    return driver


async def open_ledger(path: Path, key: SealingKey, grace: timedelta) -> Ledger:
    """Open or create the file, its schema brought up to date. Raises DelegatorError (CONFIGURATION)."""
    return Ledger(await _opened(path), key, grace)


def _require(path: Path) -> None:
    if not path.is_file():
        raise DelegatorError(Kind.CONFIGURATION, f"database {path}: no such file",
                             hint="name it as the server does: --database, or --config")


async def read_entries(path: Path) -> list[Entry]:
    """Every claim in the file, oldest first; needs no sealing key. Raises DelegatorError (CONFIGURATION)."""
    _require(path)
    driver = await _opened(path)
    try:
        return [entry_of(row) for row in await driver.read(Query(f"SELECT {COLUMNS} FROM claims ORDER BY asked_at"))]
    finally:
        await driver.close()
