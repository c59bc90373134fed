"""Contract: any room writes a message to anybody; what waited in the outbox of the release before is told as before."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from delegator.model import Message, NotificationKind, NotificationState
from delegator.store import Store, outbox_before
from delegator.store.outbox import PATIENCE, put
from delegator.store.transaction import Query

MAIL, WEBHOOK = NotificationKind.MAIL, NotificationKind.WEBHOOK
BEFORE = 12
"""The newest schema without messages."""
CLAIM, OTHER = "a" * 32, "b" * 32
AT = int(datetime(2026, 3, 1, 23, 59, 59, 999_000, UTC).timestamp() * 1000)
DAY = AT // 86_400_000
_COLUMNS = ("claim_id, kind, customer, delegate, delegator, service_tag, peer, claimed_address, created_at, "
            "give_up_at, attempts, state, notice, day, identity")
ROWS: list[tuple[Any, ...]] = [
    (CLAIM, "mail", "acme", "acme-1", "d.example", "TAG0001", "192.0.2.7", None, AT, AT + 9, 3, "waiting",
     "provisioned", 0, None),
    (CLAIM, "webhook", "acme", "acme-1", "d.example", "TAG0001", "192.0.2.7", "10.0.0.5", AT, AT + 9, 1, "sent",
     "provisioned", 0, None),
    (CLAIM, "mail", "acme", "acme-1", "d.example", "TAG0001", "203.0.113.9", None, AT, AT + 9, 0, "waiting",
     "second claimant", DAY, "shared")]


async def run(store: Store, *queries: Query) -> list[Any]:
    def work():
        found = []
        for query in queries:
            found.append((yield query))
        return found
    return await store._driver.driver.run(work)


def inserted(row: tuple[Any, ...], conflict: str = "") -> Query:
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    return Query(f"INSERT INTO outbox ({_COLUMNS}) VALUES ({places}) {conflict}", row)


async def told(store: Store, message: Message) -> None:
    await store._driver.run(lambda: put(message))


def invitation(number: int = 1, recipient: str = "mailto:ann@acme.example", at: datetime | None = None) -> Message:
    return Message(f"i{number}.invited.mail", "invited", recipient, MAIL, f"i{number}",
                   {"title": "Your device waits", "text": "Come and get it.", "unsaid": None},
                   at or datetime(2026, 3, 1, tzinfo=UTC))


# --- from the release before --------------------------------------------------------------------------------------


def queue(due_at: int, failures: int = 0) -> Query:
    return Query("INSERT INTO outbox_queues (kind, delegate, due_at, failures) VALUES ('mail', 'acme-1', $1, $2)",
                 (due_at, failures))


def after(seconds: float) -> datetime:
    return datetime.fromtimestamp(AT / 1000 + seconds, UTC)


async def test_A7c_what_waited_in_the_release_before_is_told_as_it_would_have_been(opening_empty, as_of) -> None:
    with as_of(BEFORE):
        await run(await opening_empty(), *map(inserted, ROWS), queue(AT, 4))
    store = await opening_empty()
    assert len(await store.outbox.list()) == 3, "what was not moved yet is shown too"
    assert await store.outbox.waiting(MAIL, 9) == 2
    assert await store.outbox.adopt(after(60)) == 3
    assert await store.outbox.adopt(after(60)) == 0
    newest = {one.message_id: one for one in await store.outbox.list()}
    assert list(newest) == [f"{CLAIM}.contested-20260301.mail", f"{CLAIM}.provisioned.webhook",
                            f"{CLAIM}.provisioned.mail"]
    second, hook, first = newest.values()
    assert {one.body["service_tag"] for one in newest.values()} == {"TAG0001"}
    assert {(one.recipient, one.customer, one.subject, one.claim_id) for one in newest.values()} == {
        ("acme-1", "acme", CLAIM, CLAIM)}
    assert (first.state, first.attempts, first.body.get("claimed_address")) == (NotificationState.WAITING, 3, None)
    assert (hook.state, hook.carrier, hook.body["claimed_address"]) == (NotificationState.SENT, WEBHOOK, "10.0.0.5")
    assert (second.event, second.body["identity"], second.body["peer"]) == ("second claimant", "shared", "203.0.113.9")
    (due,) = await store.outbox.due(MAIL, after(60), 9)
    assert due.failures == 4, "whoever is down stays down"
    taken = await store.outbox.take(due, after(180))
    assert taken.notification.message_id == second.message_id, "the least tried first"
    assert await store.outbox.retry(after(60), claim_id=CLAIM) == 2
    assert await store.outbox.retry(after(60), claim_id=OTHER) == 0


async def test_A7c_what_a_server_of_the_release_before_is_at_is_left_to_it(store) -> None:
    """It goes on beside this one, in its own tables: what it holds, or lets rest, is not told by two."""
    await run(store, inserted(ROWS[0]), queue(AT + 120_000))
    assert await store.outbox.adopt(after(60)) == 0
    assert [one.message_id for one in await store.outbox.list()] == [f"{CLAIM}.provisioned.mail"]
    assert await store.outbox.due(MAIL, after(60), 9) == []
    assert await store.outbox.adopt(after(121)) == 1
    assert [one.recipient for one in await store.outbox.due(MAIL, after(121), 9)] == ["acme-1"]
    assert (await run(store, Query("SELECT count(*) FROM outbox")))[0][0][0] == 0


async def test_A7c_what_an_operator_wants_tried_now_is_tried_wherever_it_waits(store) -> None:
    await run(store, *map(inserted, ROWS), queue(AT + 3_600_000, 9))
    assert await store.outbox.retry(after(0)) == 2
    (due,) = await store.outbox.due(MAIL, after(1), 9)
    assert due.failures == 0


async def test_A7c_what_was_told_already_is_not_told_again_by_being_moved(store) -> None:
    await told(store, Message(f"{CLAIM}.provisioned.mail", "provisioned", "acme-1", MAIL, CLAIM, {}, after(0), "acme"))
    await run(store, inserted(ROWS[0]))
    assert await store.outbox.adopt(after(1)) == 1
    (one,) = await store.outbox.list()
    assert one.attempts == 0


async def test_A7c_servers_that_move_the_same_move_it_once(opening) -> None:
    servers = await opening(), await opening()
    await run(servers[0], *map(inserted, ROWS), queue(AT))
    await asyncio.gather(*(servers[number % 2].outbox.adopt(after(1)) for number in range(8)))
    assert len(await servers[0].outbox.list()) == 3


def test_A10_queues_of_the_release_before_are_taken_in_the_order_in_which_all_take_them() -> None:
    """In a ring two servers would wait for each other, one that moves and one whose devices fill the same queues."""
    taken: list[str] = []

    def reopen(one: Message, due_at: int, failures: int) -> Query:
        taken.append(one.recipient)
        return Query("INSERT")

    rows = [(number, CLAIM, "mail", "acme", name, "d.example", "TAG0001", "192.0.2.7", None, AT, AT + 9, 0, "waiting",
             None, None, "provisioned", None, AT, 0) for number, name in enumerate(("c", "a", "c", "b"))]
    work = outbox_before.moved(AT, AT, 9, reopen)
    query, answer = next(work), rows
    with contextlib.suppress(StopIteration):
        while True:
            query = work.send(answer)
            answer = [(1,)] if query.sql.startswith("DELETE FROM outbox WHERE") else []
    assert taken == ["a", "b", "c"]


# --- by any room --------------------------------------------------------------------------------------------------


async def test_a_message_of_any_event_waits_in_the_queue_of_its_recipient_until_it_is_sent(store) -> None:
    await told(store, invitation())
    await told(store, invitation())
    await told(store, invitation(2, "acme-1"))
    one, other = reversed(await store.outbox.list())
    assert (one.event, one.recipient, one.carrier, one.subject, one.claim_id, one.customer) == (
        "invited", "mailto:ann@acme.example", MAIL, "i1", None, None)
    assert one.body == {"title": "Your device waits", "text": "Come and get it."}
    assert (one.give_up_at, one.state) == (one.at + PATIENCE, NotificationState.WAITING)
    queues = await store.outbox.due(MAIL, one.at, 9)
    assert {each.recipient for each in queues} == {"mailto:ann@acme.example", "acme-1"}
    for each in queues:
        taken = await store.outbox.take(each, one.at + timedelta(minutes=2))
        assert taken.notification.recipient == each.recipient
        await store.outbox.sent(taken, one.at)
    assert {each.state for each in await store.outbox.list()} == {NotificationState.SENT}
    assert other.message_id == "i2.invited.mail"


@pytest.mark.parametrize("address", ["", "ann", "ann@acme.example\r\nBcc: all@acme.example", "a@b.example,c@b.example"])
async def test_what_is_no_address_is_never_written_down(store, address) -> None:
    with pytest.raises(ValueError, match="mail address"):
        await told(store, invitation(recipient=f"mailto:{address}"))
    assert await store.outbox.list() == []


async def test_A7c_of_64_who_write_the_same_message_at_once_write_it_once(opening) -> None:
    stores = await opening(), await opening()
    await asyncio.gather(*(told(stores[number % 2], invitation()) for number in range(64)))
    assert len(await stores[0].outbox.list()) == 1
