"""Certificates issued online, and whether a shared certificate may still speak for a tag. Transactions and queries.

This table is the ledger of the authority that signs online: a certificate is here before it leaves.
The invariants: a tag has one standing enrolment at most; a claim that was opened with the shared certificate passes
to the key that was enrolled for it and to no other; once that key was seen, the shared one is refused for the tag
until an operator forgets the enrolment.
Must not live here: signing (provisioning.certifying), who may claim (store.claims).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model.audited import Act, By, Entry
from delegator.model.enrolled import Enrolled
from delegator.store.audit import ledger
from delegator.store.driver import Running
from delegator.store.moments import milliseconds, moment, moment_if_any
from delegator.store.transaction import Query, Row, Transaction

_KEPT = ("serial, service_tag, key_fingerprint, claim_id, binding, certificate, issued_at, not_after, used_at, "
         "revoked_at, reason, forgotten_at")
_OWN = "service_tag = e.service_tag AND identity = 'own' AND asked_at >= e.issued_at"
_COLUMNS = (f"{_KEPT}, CASE WHEN used_at IS NOT NULL OR EXISTS (SELECT 1 FROM claims WHERE {_OWN} AND state IN "
            f"('asking', 'issued', 'confirmed')) OR EXISTS (SELECT 1 FROM claims WHERE {_OWN} AND state IN "
            "('expired', 'released')) THEN 1 ELSE 0 END")
"""`used` is worked out too: a device that asks with its own certificate leaves a claim, and no mark here, because
that would cost a statement with every handshake of every device. The two EXISTS are the two indexes of claims."""
_FORGET = "forget it with: delegator enrolments forget {0}"


def enrolled_of(row: Row) -> Enrolled:
    """A row of _COLUMNS as a value."""
    serial, tag, key, claim_id, binding, certificate = (str(value) for value in row[:6])
    used_at, revoked_at, forgotten_at = (moment_if_any(row[at]) for at in (8, 9, 11))
    return Enrolled(serial, tag, key, claim_id, binding, certificate, moment(row[6]), moment(row[7]), used_at,
                    revoked_at, None if row[10] is None else str(row[10]), forgotten_at, bool(row[12]))


def of_tag(tag: str) -> Query:
    """The standing enrolment of a tag."""
    return Query(f"SELECT {_COLUMNS} FROM enrolled AS e WHERE service_tag = $1 AND forgotten_at IS NULL", (tag,))


def standing(tag: str) -> Transaction[Enrolled | None]:
    rows = yield of_tag(tag)
    return enrolled_of(rows[0]) if rows else None


def enrol(made: Enrolled) -> Transaction[Enrolled]:
    """Put a certificate on record for a claim that was answered and not yet confirmed, and return it; where the very
    device has one already, return that. Raises DelegatorError (NOT_ENTITLED) for anybody else."""
    there = yield from standing(made.service_tag)
    if there is not None and not there.admits(made.binding, made.key_fingerprint):
        raise DelegatorError(Kind.NOT_ENTITLED, f"{made.service_tag} is enrolled already, serial {there.serial}",
                             hint=_FORGET.format(made.service_tag))
    held = yield Query("SELECT customer, delegate, peer FROM claims WHERE claim_id = $1 AND binding = $2 AND state = "
                       "'issued'", (made.claim_id, made.binding))
    if not held:
        raise DelegatorError(Kind.NOT_ENTITLED, f"claim {made.claim_id} was ended while it was enrolled")
    if there is not None:
        if there.claim_id != made.claim_id:
            yield Query("UPDATE enrolled SET claim_id = $2 WHERE serial = $1", (there.serial, made.claim_id))
        return there
    yield Query(
        f"INSERT INTO enrolled ({_KEPT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL, NULL, NULL, NULL)",
        (made.serial, made.service_tag, made.key_fingerprint, made.claim_id, made.binding, made.certificate,
         milliseconds(made.issued_at), milliseconds(made.not_after)))
    customer, delegate, peer = (None if value is None else str(value) for value in held[0])
    yield from ledger.append(Entry(
        Act.ENROLMENT_ISSUED, made.issued_at, "device", service_tag=made.service_tag, customer=customer,
        delegate=delegate, claim_id=made.claim_id, peer=peer, detail=_said(made)))
    return made


def _said(one: Enrolled) -> dict[str, object]:
    return {"serial": one.serial, "key": one.key_fingerprint, "not_after": f"{one.not_after:%Y-%m-%dT%H:%M:%SZ}"}


def pass_on(claim_id: str, binding: str, now: int) -> Transaction[bool]:
    """Whether the key of this binding was enrolled for the claim; then it holds the claim from now on. Asked only
    where a claim is held by another binding."""
    kind, _, fingerprint = binding.partition(":")
    if kind != "key":
        return False
    rows = yield Query("UPDATE enrolled SET used_at = COALESCE(used_at, $3) WHERE claim_id = $1 AND "
                       "key_fingerprint = $2 AND revoked_at IS NULL RETURNING serial",
                       (claim_id, fingerprint, now))
    if rows:
        yield Query("UPDATE claims SET binding = $2 WHERE claim_id = $1", (claim_id, binding))
    return bool(rows)


def arrived(claim_id: str, now: int) -> Transaction[None]:
    """A claim was confirmed with the shared certificate: what came with its answer is there."""
    yield Query("UPDATE enrolled SET used_at = $2 WHERE claim_id = $1 AND used_at IS NULL", (claim_id, now))


def revoke(tag: str, reason: str, now: int, by: By) -> Transaction[Enrolled]:
    """The certificate counts for nothing from now on, and the shared one stays refused. Raises DelegatorError
    (NOT_FOUND, CONFLICT)."""
    one = yield from _must_stand(tag)
    if one.revoked_at is not None:
        raise DelegatorError(Kind.CONFLICT, f"{tag}: serial {one.serial} was revoked already, because of {one.reason}",
                             hint=_FORGET.format(tag))
    yield Query("UPDATE enrolled SET revoked_at = $2, reason = $3 WHERE serial = $1", (one.serial, now, reason))
    yield from _note(Act.ENROLMENT_REVOKED, one, now, by, reason)
    return (yield from _must_stand(tag))


def forget(tag: str, reason: str, now: int, by: By) -> Transaction[Enrolled]:
    """The tag may be claimed with the shared certificate again; its own one is revoked, unless it was before. Raises
    DelegatorError (NOT_FOUND)."""
    one = yield from _must_stand(tag)
    yield Query("UPDATE enrolled SET revoked_at = COALESCE(revoked_at, $2), reason = COALESCE(reason, $3), "
                "forgotten_at = $2 WHERE serial = $1", (one.serial, now, reason))
    yield from _note(Act.ENROLMENT_FORGOTTEN, one, now, by, reason if one.reason is None else one.reason)
    rows = yield Query(f"SELECT {_COLUMNS} FROM enrolled AS e WHERE serial = $1", (one.serial,))
    return enrolled_of(rows[0])


def _must_stand(tag: str) -> Transaction[Enrolled]:
    one = yield from standing(tag)
    if one is None:
        raise Missing("device", tag, f"no certificate was issued to {tag} here",
                      hint="see: delegator enrolments list")
    return one


def _note(act: Act, one: Enrolled, now: int, by: By, reason: str) -> Transaction[None]:
    return ledger.append(Entry(act, moment(now), by.actor, service_tag=one.service_tag, claim_id=one.claim_id,
                              peer=by.peer, reasons=(reason,), detail={**_said(one), **by.detail}))


class Enrolments:
    """The verbs above on a driver, with aware UTC for times."""

    def __init__(self, driver: Running) -> None:
        self._driver = driver

    async def enrol(self, made: Enrolled) -> Enrolled:
        return await self._driver.run(lambda: enrol(made), lambda: (f"tag/{made.service_tag}",))

    async def revoke(self, tag: str, reason: str, now: datetime, by: By) -> Enrolled:
        return await self._driver.run(lambda: revoke(tag, reason, milliseconds(now), by))

    async def forget(self, tag: str, reason: str, now: datetime, by: By) -> Enrolled:
        return await self._driver.run(lambda: forget(tag, reason, milliseconds(now), by))

    async def of_tag(self, tag: str) -> list[Enrolled]:
        """Everything ever issued to a tag, the standing one first."""
        return self._values(await self._driver.read(Query(
            f"SELECT {_COLUMNS} FROM enrolled AS e WHERE service_tag = $1 ORDER BY issued_at DESC, serial", (tag,))))

    async def page(self, after: str, most: int = 1000) -> list[Enrolled]:
        """All of them by serial, a page at a time."""
        return self._values(await self._driver.read(Query(
            f"SELECT {_COLUMNS} FROM enrolled AS e WHERE serial > $1 ORDER BY serial LIMIT $2", (after, most))))

    async def revoked(self, now: datetime) -> frozenset[int]:
        """Serial numbers that TLS must refuse: revoked, and not ended by themselves, if `now` can be believed: by a
        clock that is set back a moment later they have not."""
        rows = await self._driver.read(Query(
            "SELECT serial FROM enrolled WHERE revoked_at IS NOT NULL AND not_after > $1", (milliseconds(now),)))
        return frozenset(int(str(row[0]), 16) for row in rows)

    @staticmethod
    def _values(rows: Sequence[Row]) -> list[Enrolled]:
        return [enrolled_of(row) for row in rows]
