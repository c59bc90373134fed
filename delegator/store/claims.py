"""The life of a claim: asking -> issued -> confirmed, or expired, released. R-once and R-durable.

Every change of state is a row of model.lifecycle, and leaves one row of audit in the same transaction. Each
function is a transaction (see store.transaction) and states one rule; all limits are judged inside it, so they are
exact however many devices ask at once.
The invariants: a tag has one live claim at most; what a claim was given goes only to the binding that opened it;
a sealed credential exists only in state `issued`.
Must not live here: a device's word of its end (confirming), sealing, policy texts, time (callers pass milliseconds).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from delegator.model import CallbackWay, Claim, ClaimState, Identity, IdentityKind, Result
from delegator.model.audited import Act, By, Entry
from delegator.model.lifecycle import TABLE, Event, as_set, as_where
from delegator.model.word import Word
from delegator.policy import Applied, Reason, Why, over_limits, paced
from delegator.store import boards, enrolled, holders, paces
from delegator.store.audit import ledger
from delegator.store.contention import contended
from delegator.store.devices import still_owned, take_tag
from delegator.store.indexed import LIVE, PAST
from delegator.store.moments import milliseconds, moment
from delegator.store.transaction import Counted, Query, Row, Transaction, Twin, Value

COLUMNS = ("claim_id, service_tag, customer, delegate, state, identity, attempt, asked_at, lease_until, issued_at, "
           "ended_at, result, detail, peer, binding, sealed, callback")


def claim_of(row: Row) -> Claim:
    """A row of COLUMNS as a value."""
    texts = [None if value is None else str(value) for value in row[:15]]
    sealed = row[15]
    return Claim(
        claim_id=str(row[0]), service_tag=str(row[1]), customer=str(row[2]), delegate=str(row[3]),
        state=ClaimState(row[4]), identity=IdentityKind(row[5]), attempt=int(str(row[6])),
        asked_at=moment(row[7]), lease_until=moment(row[8]),
        issued_at=None if row[9] is None else moment(row[9]),
        ended_at=None if row[10] is None else moment(row[10]),
        result=None if row[11] is None else Result(row[11]), detail=texts[12], peer=texts[13],
        binding=str(row[14]), sealed=sealed if isinstance(sealed, bytes) else None,
        callback=None if row[16] is None else CallbackWay(row[16]))


Tell = Callable[[], Mapping[str, object]]
"""The trail of a handshake as plain data, made only where a row of audit is written."""
_HOUSEKEEPING = By("delegator")
_LONGEST_BUSY = 3_600_000
"""Milliseconds that a claim can be busy at most. One that says it is busy for longer was written by a wrong clock."""


class Ask(msgspec.Struct, frozen=True):
    """What is needed to open a claim. `policies` are those that apply, whose limits are judged as the claim is opened;
    `unnamed` is a registration without a service tag, which takes the tag of the first claim; `trail` is for the
    audit; `owned` is the registration that led to the customer; what was asked before `since` is not over yet, whatever
    `now` says (see clocks)."""

    claim_id: str
    identity: Identity
    customer: str
    delegate: str
    peer: str
    now: int
    busy_until: int
    lease_until: int
    policies: tuple[Applied, ...] = ()
    unnamed: int | None = None
    trail: Tell | None = None
    owned: int | None = None
    callback: CallbackWay | None = None
    since: int = 0

    @property
    def holders(self) -> tuple[str, str]:
        return f"customer/{self.customer}", f"delegate/{self.delegate}"

    def scope(self) -> list[str | Counted]:
        """What this claim must have to itself: its tag, and each customer or delegate whose devices a policy limits."""
        return [f"tag/{self.identity.service_tag}", *contended(self.policies)]


class Outcome(Word):
    """What asking for a claim led to."""

    OPENED = "opened"
    RESUMED = "resumed after a broken try"
    ISSUED = "opened and issued in one commit"
    SAME_AGAIN = "same answer again"
    BUSY = "being answered"
    TAKEN = "taken by another"
    DONE = "already confirmed"
    OVER_LIMIT = "over a limit"
    UNSURE = "over if the clock is right"


class Opened(msgspec.Struct, frozen=True):
    """The outcome, the claim it concerns (None only when over a limit) and the reasons of a limit."""

    outcome: Outcome
    claim: Claim | None = None
    reasons: tuple[Reason, ...] = ()


_STANDING = {ClaimState.ISSUED: Outcome.SAME_AGAIN, ClaimState.CONFIRMED: Outcome.DONE}
Seal = Callable[[str], bytes]
"""Makes the sealed credential of a claim from its id, where it needs nobody else."""


def open_claim(ask: Ask, seal: Seal | None = None) -> Transaction[Opened]:
    """Open a claim, resume the one that a crash left asking, or say who stands in the way. With `seal` it is issued
    in the same commit: nothing leaves in between, so one fsync is as safe as two."""
    (row,) = yield _look(ask)
    *counts, held = row
    if held is None:
        return (yield from _fresh(ask, seal, counts))
    rows = yield Query(f"SELECT {COLUMNS}, busy_until FROM claims WHERE claim_id = $1 AND {LIVE}", (held,))
    if rows:  # else housekeeping ended it between the two looks
        live, busy_until = claim_of(rows[0]), int(str(rows[0][17]))
        opened = None if lapsed(live, ask) else (yield from _standing(live, busy_until, ask))
        if opened is not None:
            return opened
        yield from end(live.claim_id, Event.LAPSED if lapsed(live, ask) else Event.REROUTED, ask.now, _HOUSEKEEPING)
    return (yield from _fresh(ask, seal))


def again(ask: Ask) -> Transaction[Opened | None]:
    """The outcome for a device that asks again for what it has, found by reading alone; None if only `open_claim` can
    tell."""
    rows = yield live_of(ask.identity.service_tag)
    live = claim_of(rows[0]) if rows else None
    if live is None or _ran_out(live, ask) or not hmac.compare_digest(live.binding, ask.identity.binding):
        return None
    return Opened(_STANDING[live.state], live) if live.state in _STANDING else None


def lapsed(live: Claim, ask: Ask) -> bool:
    """Whether the claim's lease is over, as far as the clock can be believed."""
    return _ran_out(live, ask) and milliseconds(live.asked_at) >= ask.since


def _ran_out(live: Claim, ask: Ask) -> bool:
    return live.state is not ClaimState.CONFIRMED and milliseconds(live.lease_until) <= ask.now


def _standing(live: Claim, busy_until: int, ask: Ask) -> Transaction[Opened | None]:
    """The outcome for a request that meets a live claim. None if that claim is a crashed try at a delegate that is no
    longer the right one: then a new claim takes its place."""
    if not hmac.compare_digest(live.binding, ask.identity.binding) and not (
            yield from enrolled.pass_on(live.claim_id, ask.identity.binding, ask.now)):
        return Opened(Outcome.TAKEN, live)
    if _ran_out(live, ask):  # a new claim cannot be taken back, and the clock is not certain yet
        return Opened(Outcome.UNSURE, live)
    if live.state in _STANDING:
        return Opened(_STANDING[live.state], live)
    if live.claim_id == ask.claim_id:
        return Opened(Outcome.OPENED, live)  # our own retry: it was committed, and its confirmation was lost
    if ask.now < busy_until <= ask.now + max(_LONGEST_BUSY, 2 * (ask.busy_until - ask.now)):
        return Opened(Outcome.BUSY, live)
    if (live.customer, live.delegate) != (ask.customer, ask.delegate):
        return None
    yield Query("UPDATE claims SET busy_until = $2 WHERE claim_id = $1", (live.claim_id, ask.busy_until))
    return Opened(Outcome.RESUMED, live)


def _fresh(ask: Ask, seal: Seal | None, counts: Row | None = None) -> Transaction[Opened]:
    """A new claim, unless a limit is in the way. `counts` are those of this very transaction, where nothing has
    changed them since."""
    attempts, reasons, repaired = yield from obstacles(ask, counts)
    if not reasons and ask.unnamed is not None:
        reasons = yield from _name_registration(ask.unnamed, ask.identity.service_tag)
    if reasons:
        return Opened(Outcome.OVER_LIMIT, None, reasons)
    event = Event.ASKED if seal is None else Event.SERVED
    sealed = None if seal is None else seal(ask.claim_id)
    claim = _new(ask, attempts + 1, sealed)
    yield Query(
        "INSERT INTO claims (claim_id, service_tag, customer, delegate, state, identity, binding, attempt, peer, "
        "asked_at, busy_until, lease_until, issued_at, sealed, callback) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        (claim.claim_id, claim.service_tag, claim.customer, claim.delegate, claim.state.value, claim.identity.value,
         claim.binding, claim.attempt, claim.peer, ask.now, 0 if sealed else ask.busy_until, ask.lease_until,
         ask.now if sealed else None, sealed, claim.callback and claim.callback.value))
    yield holders.take(ask.holders)
    if hourly := paced(ask.policies):
        yield from paces.note(hourly, ask.now)
    yield from note(event, claim, claim.asked_at, By("device", ask.peer), ask.trail if sealed else None)
    if repaired:
        yield from boards.use(claim.service_tag)
    return Opened(Outcome.ISSUED if sealed else Outcome.OPENED, claim)


def note(event: Event, claim: Claim, at: datetime, by: By, trail: Tell | None = None) -> Transaction[None]:
    """The one row of audit of a claim's change."""
    detail: dict[str, object] = {"event": event.value, "identity": claim.identity.value, "attempt": claim.attempt,
                                 **by.detail}
    if TABLE[event].act is Act.CLAIM_ISSUED:
        detail["callback"] = claim.callback and claim.callback.value
    if trail is not None:
        detail["trail"] = trail()
    return ledger.append(Entry(
        TABLE[event].act, at, by.actor, service_tag=claim.service_tag, customer=claim.customer,
        delegate=claim.delegate, claim_id=claim.claim_id, peer=by.peer,
        reasons=() if by.because is None else (by.because,), detail=detail))


def _new(ask: Ask, attempt: int, sealed: bytes | None) -> Claim:
    asked_at = moment(ask.now)
    return Claim(
        claim_id=ask.claim_id, service_tag=ask.identity.service_tag, customer=ask.customer, delegate=ask.delegate,
        state=ClaimState.ISSUED if sealed else ClaimState.ASKING, identity=ask.identity.kind, attempt=attempt,
        asked_at=asked_at, lease_until=moment(ask.lease_until), issued_at=asked_at if sealed else None, peer=ask.peer,
        binding=ask.identity.binding, sealed=sealed, callback=ask.callback)


def _name_registration(device_id: int, tag: str) -> Transaction[tuple[Reason, ...]]:
    """A serial number or MAC address is only said. The first claim binds it to a tag, so that it cannot be said again
    under another one."""
    taken = yield from take_tag(device_id, tag)
    return () if taken else (Reason(Why.UNREGISTERED, "its registration was taken by another service tag"),)


def obstacles(ask: Ask, counts: Row | None = None, *,
              make_room: bool = True) -> Transaction[tuple[int, tuple[Reason, ...], bool]]:
    """The attempts so far, why no claim may be opened, or (), and whether the tag's main board was replaced. With
    `make_room` claims whose lease is over give their places back before limits refuse; without it nothing is written.
    `counts` is what `_COUNTS` gave, None if it was not read yet."""
    attempts, places, repaired, owned = _read(ask, (yield from _counts(ask)) if counts is None else counts)
    if ask.owned is not None and not owned and not (yield from still_owned(ask.owned, ask.customer)):
        return attempts, (Reason(Why.OWNER, "it changed hands while it asked"),), bool(repaired)
    if repaired:
        reasons = yield from boards.obstacles(ask.identity.service_tag, ask.identity.binding, ask.now)
        if reasons:
            return attempts, reasons, True
    reasons = over_limits(ask.policies, places, attempts)
    if reasons and make_room and (yield from expire_lapsed(ask.now, ask.customer, since=ask.since)):
        attempts, places, *_ = _read(ask, (yield from _counts(ask)))
        reasons = over_limits(ask.policies, places, attempts)
    if paced(ask.policies):
        reasons += yield from paces.obstacles(ask.policies, ask.now)
    return attempts, reasons, bool(repaired)


_COUNTS, _COUNTS_OF_LANES = holders.beside(
    f"(SELECT count(*) FROM claims WHERE service_tag = $1 AND {PAST} AND state = 'expired'), "
    "(SELECT count(*) FROM boards WHERE service_tag = $1), "
    "(SELECT count(*) FROM devices WHERE device_id = $4 AND customer = $5)", 2, 3)
_HOLDS = f"(SELECT claim_id FROM claims WHERE service_tag = $1 AND {LIVE})"
"""Who holds the tag is looked up with the counts, as each statement costs 5-10 µs, and a round trip where the database
is elsewhere. The whole claim is read where there is one; joined to the counts it would make SQLite open a table of its
own."""
_LOOK, _LOOK_AT_LANES = f"{_COUNTS}, {_HOLDS}", f"{_COUNTS_OF_LANES}, {_HOLDS}"


def _look(ask: Ask) -> Query:
    """The counts, and behind them who holds the tag."""
    return Twin(_LOOK, _counted(ask), _LOOK_AT_LANES)


def _counts(ask: Ask) -> Transaction[Row]:
    rows = yield Twin(_COUNTS, _counted(ask), _COUNTS_OF_LANES)
    return rows[0]


def _counted(ask: Ask) -> tuple[Value, ...]:
    """What `_COUNTS` is asked with."""
    return (ask.identity.service_tag, *ask.holders, ask.owned, ask.customer)


def _read(ask: Ask, counts: Row) -> tuple[int, dict[str, int], Value, Value]:
    """Expired claims of the tag, places taken by holder, what is kept of a main board replaced, and whether the
    device's own row names the customer."""
    attempts, repaired, owned, of_customer, of_delegate = counts
    customer, delegate = ask.holders
    return _number(attempts), {customer: _number(of_customer), delegate: _number(of_delegate)}, repaired, owned


def _number(value: Value) -> int:
    """A count, none where there is no row."""
    assert value is None or isinstance(value, int)
    return value or 0


_ANSWERED = (f"UPDATE claims SET {as_set(Event.ANSWERED)}, issued_at = $2, sealed = $3, busy_until = 0, "
             "callback = COALESCE($4, callback)")
_ISSUE = (f"{_ANSWERED} WHERE claim_id = $1 AND {as_where(Event.ANSWERED)} "
          f"AND (CAST($5 AS TEXT) IS NULL OR delegate = $5) RETURNING {COLUMNS}")
_ISSUE_ELSEWHERE = (f"{_ANSWERED}, delegate = $5 WHERE claim_id = $1 AND {as_where(Event.ANSWERED)} "
                    f"AND delegate = $6 RETURNING {COLUMNS}")


def issue(claim_id: str, sealed: bytes, now: int, delegate: str | None = None,
          trail: Tell | None = None, callback: CallbackWay | None = None) -> Transaction[Claim | None]:
    """asking -> issued, and from then on billable; `delegate` and `callback` say who answered and how, where it is
    not who the claim was opened for. None when the claim is no longer asking: somebody else ended it meanwhile."""
    answer = (claim_id, now, sealed, callback and callback.value, delegate)
    rows = yield Query(_ISSUE, answer)
    if not rows and delegate is not None:
        rows = yield from _issue_elsewhere(answer, delegate)
    if not rows:  # unless this is our own retry: it was committed, and its confirmation was lost
        rows = yield Query(f"SELECT {COLUMNS} FROM claims WHERE claim_id = $1 AND sealed = $2", (claim_id, sealed))
        return claim_of(rows[0]) if rows else None
    claim = claim_of(rows[0])
    yield from note(Event.ANSWERED, claim, moment(now), By("device", claim.peer), trail)
    return claim


def _issue_elsewhere(answer: tuple[Value, ...], delegate: str) -> Transaction[Sequence[Row]]:
    """As `_ISSUE`, by another delegate than the claim was opened for; its place moves along."""
    before = yield Query(f"SELECT delegate FROM claims WHERE claim_id = $1 AND {as_where(Event.ANSWERED)} "
                         "AND delegate <> $2", (answer[0], delegate))
    rows = (yield Query(_ISSUE_ELSEWHERE, (*answer, before[0][0]))) if before else ()
    if rows:
        yield holders.give_back_one(f"delegate/{before[0][0]!s}")
        yield holders.take_one(f"delegate/{delegate}")
    return rows


def open_and_issue(ask: Ask, seal: Seal) -> Transaction[Opened]:
    """Open and issue in one commit; a claim that a crash left asking is issued too, unless whoever was slow with it
    does so first."""
    opened = yield from open_claim(ask, seal)
    if opened.outcome is not Outcome.RESUMED or opened.claim is None:
        return opened
    issued = yield from issue(opened.claim.claim_id, seal(opened.claim.claim_id), ask.now,
                              trail=ask.trail, callback=ask.callback)
    return Opened(Outcome.BUSY, opened.claim) if issued is None else Opened(Outcome.ISSUED, issued)


def live_of(service_tag: str) -> Query:
    """The claim that holds a tag and its place."""
    return Query(f"SELECT {COLUMNS} FROM claims WHERE service_tag = $1 AND {LIVE}", (service_tag,))


def pause(claim_id: str) -> Transaction[None]:
    """The callback failed: the claim stays `asking` and the next try may take it up at once."""
    yield Query("UPDATE claims SET busy_until = 0 WHERE claim_id = $1 AND state = 'asking'", (claim_id,))


def pause_all() -> Transaction[None]:
    """For the start of the only server of a database: no device is being answered then, so every claim that a crash
    left busy is free."""
    yield Query("UPDATE claims SET busy_until = 0 WHERE state = 'asking' AND busy_until > 0")


def end(claim_id: str, event: Event, now: int, by: By) -> Transaction[Claim | None]:
    """A live claim is over: its credential is wiped, its place given back. None if the event does not apply
    in the claim's state."""
    rows = yield Query(
        f"UPDATE claims SET {as_set(event)}, sealed = NULL, ended_at = $2, busy_until = 0 WHERE claim_id = $1 "
        f"AND {LIVE} AND {as_where(event)} RETURNING {COLUMNS}", (claim_id, now))
    if not rows:
        return None
    claim = claim_of(rows[0])
    yield holders.give_back((f"customer/{claim.customer}", f"delegate/{claim.delegate}"))
    yield from note(event, claim, moment(now), by)
    return claim


def expire_lapsed(now: int, customer: str | None = None, most: int = 500, since: int = 0) -> Transaction[int]:
    """Claims whose lease is over: expired, their credentials wiped, their places given back. At most `most`, and none
    that was asked before `since`."""
    condition, whose = ("AND customer = $4", (customer,)) if customer else ("", ())
    rows = yield Query(
        f"SELECT claim_id FROM claims WHERE {as_where(Event.LAPSED)} AND lease_until <= $1 AND asked_at >= $3 "
        f"{condition} ORDER BY lease_until LIMIT $2", (now, most, since, *whose))
    for row in rows:
        yield from end(str(row[0]), Event.LAPSED, now, _HOUSEKEEPING)
    return len(rows)


def release(service_tag: str, now: int, by: By, event: Event = Event.RELEASED) -> Transaction[list[Claim]]:
    """The live claim of a tag is released and its attempts are forgotten, so that the device can be provisioned
    anew. The claims changed, the live one first."""
    rows = yield Query(f"SELECT claim_id FROM claims WHERE service_tag = $1 AND {LIVE}", (service_tag,))
    changed = []
    for row in rows:
        ended = yield from end(str(row[0]), event, now, by)
        changed += [] if ended is None else [ended]
    forgotten = yield Query(f"UPDATE claims SET {as_set(event)} WHERE service_tag = $1 AND {PAST} "
                            f"AND state = 'expired' RETURNING {COLUMNS}", (service_tag,))
    for claim in map(claim_of, forgotten):
        yield from note(event, claim, moment(now), by)
        changed.append(claim)
    return changed
