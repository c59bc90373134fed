"""The outbox of the release before: tables that only its programs write, and what they leave there is moved.

Such a program may be at work on the same database, or have been until now. It goes on in its own tables, and whoever
comes to what waits there first tells it: a queue that it holds, or that rests, is left alone.
The invariants: a row is moved once, with its id, its tries and its patience, and its queue rests as long as it did;
queues are taken in the order in which all take them, so that two servers do not wait for each other in a ring.
Must not live here: anything that outlives that release; two releases later this file and the tables go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from delegator.model import Notification, NotificationKind, NotificationState
from delegator.store.moments import milliseconds, moment, moment_if_any
from delegator.store.transaction import Query, Row, Transaction

_COLUMNS = ("o.number, o.claim_id, o.kind, o.customer, o.delegate, o.delegator, o.service_tag, o.peer, "
            "o.claimed_address, o.created_at, o.give_up_at, o.attempts, o.state, o.last_error, o.ended_at, o.notice, "
            "o.identity, q.due_at, q.failures")
_WITH_QUEUES = "outbox o LEFT JOIN outbox_queues q ON q.kind = o.kind AND q.delegate = o.delegate"
ANY = Query("SELECT 1 FROM outbox LIMIT 1")
"""Whether there is anything to be moved: nearly always not."""


def rows_of(customer: str | None, state: str | None, recipient: str | None, most: int) -> Query:
    """What is still there, the newest first."""
    return Query(f"SELECT {_COLUMNS} FROM {_WITH_QUEUES} WHERE (CAST($1 AS TEXT) IS NULL OR o.customer = $1) AND "
                 "(CAST($2 AS TEXT) IS NULL OR o.state = $2) AND (CAST($3 AS TEXT) IS NULL OR o.delegate = $3) "
                 "ORDER BY o.number DESC LIMIT $4", (customer, state, recipient, most))


def message_of(row: Row) -> Notification:
    """A row of _COLUMNS as a message."""
    text = [None if value is None else str(value) for value in row]
    notice, at, kind = str(row[15]), moment(row[9]), NotificationKind(row[2])
    of = "provisioned" if notice == "provisioned" else f"contested-{at:%Y%m%d}"
    body = {"service_tag": text[6], "peer": text[7], "claimed_address": text[8], "delegator": text[5],
            "identity": text[16]}
    return Notification(
        message_id=f"{text[1]}.{of}.{kind.value}", event=notice, recipient=str(row[4]), carrier=kind,
        subject=str(row[1]), body={name: value for name, value in body.items() if value is not None}, at=at,
        customer=text[3], number=int(str(row[0])), give_up_at=moment(row[10]), attempts=int(str(row[11])),
        state=NotificationState(row[12]), last_error=text[13], ended_at=moment_if_any(row[14]))


Reopen = Callable[[Notification, int, int], Query]
"""Makes the statement that opens a message's queue anew, from when it is due and its failures."""


def moved(now: int, furthest: int, most: int, reopen: Reopen, held: bool = False) -> Transaction[int]:
    """Move so many at most, and of queues only those that are due, or due later than `furthest` by a clock that was
    wrong; with `held` those too that a program holds. How many there were."""
    rows = yield Query(f"SELECT {_COLUMNS} FROM {_WITH_QUEUES} WHERE o.state <> 'waiting' OR q.due_at IS NULL OR "
                       "q.due_at <= $1 OR q.due_at > $2 OR CAST($3 AS BIGINT) = 1 ORDER BY o.number LIMIT $4",
                       (now, furthest, int(held), most))
    queues: dict[tuple[str, str], tuple[Notification, Sequence[object]]] = {}
    for row in rows:
        one = message_of(row)
        if (yield from _move(one)) and one.state is NotificationState.WAITING:
            queues[one.carrier.value, one.recipient] = one, row[17:19]
    for (kind, delegate), (one, queue) in sorted(queues.items(), key=lambda each: each[0]):
        due_at, failures = (None if value is None else int(str(value)) for value in queue)
        yield reopen(one, now if due_at is None else due_at, failures or 0)
        yield Query("DELETE FROM outbox_queues WHERE kind = $1 AND delegate = $2 AND NOT EXISTS (SELECT 1 FROM outbox "
                    "WHERE kind = $1 AND delegate = $2 AND state = 'waiting')", (kind, delegate))
    return len(rows)


def _move(one: Notification) -> Transaction[bool]:
    """Whether it was there; else another process was faster."""
    if not (yield Query("DELETE FROM outbox WHERE number = $1 RETURNING number", (one.number,))):
        return False
    ended = None if one.ended_at is None else milliseconds(one.ended_at)
    yield Query(
        "INSERT INTO messages (message_id, event, recipient, carrier, subject, body, customer, created_at, give_up_at, "
        "attempts, state, last_error, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) "
        "ON CONFLICT (message_id) DO NOTHING",
        (one.message_id, one.event, one.recipient, one.carrier.value, one.subject,
         msgspec.json.encode(one.body, order="sorted").decode(), one.customer, milliseconds(one.at),
         milliseconds(one.give_up_at), one.attempts, one.state.value, one.last_error, ended))
    return True
