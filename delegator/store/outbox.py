"""The outbox: what somebody is still to be told, and by which carrier. At least once, never lost, in nobody's way.

Any room of the store writes a message with `put`, composed by `yield from` into the transaction that makes it true: a
crash loses none, and whoever says the same again adds none. For each carrier and recipient there is a queue, a row that
says when it may be worked on; a worker takes it by a compare-and-swap of that time, so of several processes one sends.
A program of the release before has tables of its own, `outbox` and `outbox_queues`; what it leaves in them is moved.
The invariants: a message is told once, by its id; no secret is in any row.
Must not live here: which events there are, wording, sending, how long to wait (notify).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from delegator.model import MAIL_ADDRESS, Message, Notification, NotificationKind, NotificationState, must_match
from delegator.model.audited import Act, By, Entry
from delegator.model.notified import MAIL_TO
from delegator.store import outbox_before
from delegator.store.audit.ledger import append
from delegator.store.driver import Running
from delegator.store.filters import chosen
from delegator.store.moments import milliseconds, milliseconds_of, moment, moment_if_any
from delegator.store.transaction import Query, Row, Transaction, Twin, rows_alone

COLUMNS = ("number, message_id, event, recipient, carrier, subject, body, customer, created_at, give_up_at, attempts, "
           "state, last_error, ended_at")
PATIENCE = timedelta(days=3)
"""How long a notification is tried: a weekend and a day, in which somebody mends a relay."""
SHORT, LONG = timedelta(minutes=10), timedelta(minutes=61)
"""How far away a queue can be due: after up to four failures, and after any number. What is due later was written by
a clock that was wrong, and is due now; the longest rest and the longest hold are shorter, by the seconds that the
clocks of several delegators may be apart."""
_AT_A_TIME = 500
"""Rows changed by one transaction of upkeep, so that no device waits for it."""
_LONGEST_ERROR = 300
DAY = 24 * 3600 * 1000
"""Milliseconds."""


class Queue(msgspec.Struct, frozen=True):
    """One queue as it was seen. Whoever changes `due_at` from that first has it."""

    carrier: NotificationKind
    recipient: str
    due_at: int
    failures: int = 0


class Taken(msgspec.Struct, frozen=True):
    """A notification to send now, and its queue as it is held for that."""

    notification: Notification
    queue: Queue


def notification_of(row: Row) -> Notification:
    """A row of COLUMNS as a value."""
    customer, why = (None if value is None else str(value) for value in (row[7], row[12]))
    return Notification(
        message_id=str(row[1]), event=str(row[2]), recipient=str(row[3]), carrier=NotificationKind(row[4]),
        subject=str(row[5]), body=msgspec.json.decode(str(row[6]), type=dict[str, str | None]), customer=customer,
        at=moment(row[8]), number=int(str(row[0])), give_up_at=moment(row[9]), attempts=int(str(row[10])),
        state=NotificationState(row[11]), last_error=why, ended_at=moment_if_any(row[13]))


def put(message: Message) -> Transaction[None]:
    """Note what is to be told, and open its queue. A queue that is there stays as it is: somebody works on it, or its
    target is down. Raises ValueError for a recipient that is no address."""
    if message.recipient.startswith(MAIL_TO):
        must_match(MAIL_ADDRESS, message.recipient.removeprefix(MAIL_TO), "mail address")
    at = milliseconds(message.at)
    said = {name: value for name, value in message.body.items() if value is not None}
    yield Query(
        "INSERT INTO messages (message_id, event, recipient, carrier, subject, body, customer, created_at, give_up_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (message_id) DO NOTHING",
        (message.message_id, message.event, message.recipient, message.carrier.value, message.subject,
         msgspec.json.encode(said, order="sorted").decode(), message.customer, at, at + milliseconds_of(PATIENCE)))
    yield Twin(_OPEN, (message.carrier.value, message.recipient, at), _OPEN_AND_HOLD)


_OPEN = ("INSERT INTO message_queues (carrier, recipient, due_at) VALUES ($1, $2, $3) "
         "ON CONFLICT (carrier, recipient) DO NOTHING")
_OPEN_AND_HOLD = ("INSERT INTO message_queues (carrier, recipient, due_at) VALUES ($1, $2, $3) "
                  "ON CONFLICT (carrier, recipient) DO UPDATE SET carrier = excluded.carrier")
"""Where transactions run side by side whoever puts something into a queue holds the queue until it is committed: else a
worker that finds the queue empty at that moment would remove it."""


_REOPEN = ("INSERT INTO message_queues (carrier, recipient, due_at, failures) VALUES ($1, $2, $3, $4) "
           "ON CONFLICT (carrier, recipient) DO UPDATE SET carrier = excluded.carrier")


def _reopened(message: Message, due_at: int, failures: int) -> Query:
    """The queue of a message that comes from the release before, as it was there, unless there is one here."""
    return Query(_REOPEN, (message.carrier.value, message.recipient, due_at, failures))


def told_since(event: str, recipient: str, carrier: NotificationKind, since: int) -> Query:
    """How many messages of an event there are to a recipient by a carrier, of that time (ms) and the day after it: for
    who promises that nobody is flooded."""
    return Query("SELECT (SELECT count(*) FROM messages WHERE event = $1 AND recipient = $2 AND carrier = $3 AND "
                 "created_at >= $4 AND created_at < $5) + (SELECT count(*) FROM outbox WHERE notice = $1 AND "
                 "delegate = $2 AND kind = $3 AND created_at >= $4 AND created_at < $5)",
                 (event, recipient, carrier.value, since, since + DAY))


def due(carrier: NotificationKind, now: int, most: int) -> Query:
    """Queues that may be worked on now, the longest waiting first. One that is due further away than any pause is
    long was put off by a wrong clock."""
    return Query("SELECT carrier, recipient, due_at, failures FROM message_queues WHERE carrier = $1 AND (due_at <= $2 "
                 "OR due_at > CASE WHEN failures < 5 THEN CAST($4 AS BIGINT) "
                 "ELSE CAST($5 AS BIGINT) END) ORDER BY due_at LIMIT $3",
                 (carrier.value, now, most, now + milliseconds_of(SHORT), now + milliseconds_of(LONG)))


def queue_of(row: Row) -> Queue:
    return Queue(NotificationKind(row[0]), str(row[1]), int(str(row[2])), int(str(row[3])))


def _swap(queue: Queue, due_at: int, failures: int) -> Transaction[Queue | None]:
    """Push the queue's time from what it was seen as; None when somebody else has it."""
    rows = yield Query(
        "UPDATE message_queues SET due_at = $4, failures = $5 WHERE carrier = $1 AND recipient = $2 AND due_at = $3 "
        "RETURNING due_at", (queue.carrier.value, queue.recipient, queue.due_at, due_at, failures))
    return replace(queue, due_at=due_at, failures=failures) if rows else None


def take(queue: Queue, until: int) -> Transaction[Taken | None]:
    """Hold a queue until then and take its next notification, the least tried first, so that one that nobody
    accepts is not in the way of the others. None when there is nothing to do: somebody else holds the queue, or it
    is empty, and then it is gone. A holder that crashes loses it at `until`."""
    put_off = queue.due_at > until + milliseconds_of(SHORT)  # by a wrong clock, see `due`
    held = yield from _swap(queue, until if put_off else max(until, queue.due_at + 1), queue.failures)
    if held is None:
        return None
    which = (queue.carrier.value, queue.recipient)
    rows = yield Query(
        "UPDATE messages SET attempts = attempts + 1 WHERE number = (SELECT number FROM messages WHERE carrier = $1 "
        f"AND recipient = $2 AND state = 'waiting' ORDER BY attempts, number LIMIT 1) RETURNING {COLUMNS}", which)
    if rows:
        return Taken(notification_of(rows[0]), held)
    yield Query("DELETE FROM message_queues WHERE carrier = $1 AND recipient = $2", which)
    return None


def sent(taken: Taken, now: int) -> Transaction[Queue | None]:
    """It was delivered. The queue as it is still held, or None when that took too long and another has it."""
    yield from _end(taken.notification.number, "sent", None, now)
    return (yield from _swap(taken.queue, taken.queue.due_at + 1, 0))


def given_up(taken: Taken, why: str, now: int) -> Transaction[Queue | None]:
    """There is nobody to tell it to any more. The queue as it is still held."""
    yield from _end(taken.notification.number, "given up", why, now)
    return (yield from _swap(taken.queue, taken.queue.due_at + 1, taken.queue.failures))


def _end(number: int, state: str, why: str | None, now: int) -> Transaction[None]:
    yield Query("UPDATE messages SET state = $2, last_error = $3, ended_at = $4 WHERE number = $1",
                (number, state, why and why[:_LONGEST_ERROR], now))


def failed(taken: Taken, why: str, now: int, due_at: int, give_up: bool = True) -> Transaction[list[Notification]]:
    """It could not be delivered; the whole queue waits until `due_at`. The ones whose time is over are given up,
    and returned, where `give_up` says that `now` can be believed."""
    yield Query("UPDATE messages SET last_error = $2 WHERE number = $1",
                (taken.notification.number, why[:_LONGEST_ERROR]))
    yield from _swap(taken.queue, due_at, taken.queue.failures + 1)
    if not give_up:
        return []
    rows = yield Query(
        "UPDATE messages SET state = 'given up', ended_at = $3, last_error = $4 WHERE number IN (SELECT number FROM "
        "messages WHERE carrier = $1 AND recipient = $2 AND state = 'waiting' AND give_up_at <= $3 ORDER BY attempts, "
        f"number LIMIT {_AT_A_TIME}) RETURNING {COLUMNS}",
        (taken.queue.carrier.value, taken.queue.recipient, now, why[:_LONGEST_ERROR]))
    return [notification_of(row) for row in rows]


def retry(now: int, subject: str | None, recipient: str | None) -> Transaction[int]:
    """Try again now whatever was not sent, of one claim, one delegate, or all; with new patience. A queue that is
    being worked on may be worked on twice then: receivers drop duplicates by their id."""
    while (yield from outbox_before.moved(now, now, _AT_A_TIME, _reopened, held=True)):
        pass
    where, values = chosen({"subject = {0}": subject, "recipient = {0}": recipient}, 2)
    rows = yield Query(
        "UPDATE messages SET state = 'waiting', ended_at = NULL, attempts = 0, give_up_at = $1 WHERE state <> 'sent' "
        f"AND {where} RETURNING carrier, recipient", (now + milliseconds_of(PATIENCE), *values))
    for kind, whose in sorted({(str(row[0]), str(row[1])) for row in rows}):
        yield Query("INSERT INTO message_queues (carrier, recipient, due_at) VALUES ($1, $2, $3) "
                    "ON CONFLICT (carrier, recipient) DO UPDATE SET due_at = $3, failures = 0", (kind, whose, now))
    return len(rows)


def waiting(carrier: NotificationKind, most: int) -> Query:
    """How many are still to be sent by a carrier, counted up to `most`."""
    return Query("SELECT count(*) FROM (SELECT number FROM messages WHERE state = 'waiting' AND carrier = $1 UNION ALL "
                 "SELECT number FROM outbox WHERE state = 'waiting' AND kind = $1 LIMIT $2) AS waiting",
                 (carrier.value, most))


def _noted(work: Transaction[int], by: By, now: datetime, claim_id: str | None,
           delegate: str | None) -> Transaction[int]:
    """An operator's act has its row of audit."""
    count = yield from work
    if count:
        yield from append(Entry(Act.NOTIFICATIONS_RETRIED, now, by.actor, delegate=delegate, claim_id=claim_id,
                                peer=by.peer, detail={"count": count}))
    return count


def forget(before: int) -> Transaction[int]:
    """Drop what ended before then: a log of who was told what is not ours to keep for ever."""
    rows = yield Query("DELETE FROM messages WHERE number IN (SELECT number FROM messages WHERE ended_at < $1 "
                       f"LIMIT {_AT_A_TIME}) RETURNING number", (before,))
    return len(rows)


class Outbox:
    """The verbs above on a driver, with aware UTC for times."""

    def __init__(self, driver: Running, by: By) -> None:
        """`by` says whose acts these are, for the audit."""
        self._driver, self._by = driver, by

    async def due(self, kind: NotificationKind, now: datetime, most: int) -> list[Queue]:
        return [queue_of(row) for row in await self._driver.read(due(kind, milliseconds(now), most))]

    async def take(self, queue: Queue, until: datetime) -> Taken | None:
        return await self._driver.run(lambda: take(queue, milliseconds(until)), rows_alone)

    async def sent(self, taken: Taken, now: datetime) -> Queue | None:
        return await self._driver.run(lambda: sent(taken, milliseconds(now)), rows_alone, repeatable=True)

    async def given_up(self, taken: Taken, why: str, now: datetime) -> Queue | None:
        return await self._driver.run(lambda: given_up(taken, why, milliseconds(now)), rows_alone)

    async def failed(self, taken: Taken, why: str, now: datetime, due_at: datetime, *,
                     give_up: bool = True) -> list[Notification]:
        return await self._driver.run(
            lambda: failed(taken, why, milliseconds(now), milliseconds(due_at), give_up), rows_alone)

    async def retry(self, now: datetime, *, claim_id: str | None = None, delegate: str | None = None) -> int:
        return await self._driver.run(lambda: _noted(retry(milliseconds(now), claim_id, delegate), self._by, now,
                                                     claim_id, delegate))

    async def waiting(self, kind: NotificationKind, most: int) -> int:
        return int(str((await self._driver.read(waiting(kind, most)))[0][0]))

    async def adopt(self, now: datetime) -> int:
        """Move what a program of the release before left in its own outbox. A look that finds nothing writes
        nothing."""
        if not await self._driver.read(outbox_before.ANY):
            return 0
        at = milliseconds(now)
        return await self._driver.run(
            lambda: outbox_before.moved(at, at + milliseconds_of(LONG), _AT_A_TIME, _reopened),
            rows_alone)

    async def forget(self, before: datetime) -> int:
        return await self._driver.run(lambda: forget(milliseconds(before)), rows_alone)

    async def list(self, *, customer: str | None = None, state: NotificationState | None = None,
                   delegate: str | None = None, most: int = 1000) -> list[Notification]:
        """Notifications, newest first."""
        where, values = chosen({"customer = {0}": customer, "state = {0}": None if state is None else state.value,
                                "recipient = {0}": delegate}, 2)
        rows = await self._driver.read(Query(
            f"SELECT {COLUMNS} FROM messages WHERE {where} ORDER BY number DESC LIMIT $1", (most, *values)))
        before = await self._driver.read(outbox_before.rows_of(
            customer, None if state is None else state.value, delegate, most))
        return [*(notification_of(row) for row in rows), *map(outbox_before.message_of, before)][:most]
