"""Keys of devices whose main board was replaced: the old one's, refused for good, and the one that may come.

A claim is bound to the key of the board that asked. Once an operator approved a repair, the tag keeps its name and
changes its key, and a board that was taken out (or stolen out of the scrap) gets nothing under that tag again.
The invariant: the old key is refused from the commit of the repair on; `open` lets one claim through, no more.
Must not live here: what else a repair changes (store.ownership), who may claim what (store.claims).
"""

from __future__ import annotations

from datetime import datetime

from delegator.model.owned import Board, Standing
from delegator.policy import Reason, Why
from delegator.store.moments import moment, moment_if_any
from delegator.store.transaction import Query, Row, Transaction


def of_tag(tag: str) -> Query:
    """What is kept of a tag's keys."""
    return Query("SELECT binding, standing, since, until FROM boards WHERE service_tag = $1 ORDER BY since, binding",
                 (tag,))


def board_of(row: Row) -> Board:
    return Board(str(row[0]), Standing(row[1]), moment(row[2]), moment_if_any(row[3]))


def obstacles(tag: str, binding: str, now: int) -> Transaction[tuple[Reason, ...]]:
    """Why this key may not claim this tag, or ()."""
    rows = yield of_tag(tag)
    return against([board_of(row) for row in rows], binding, moment(now))


def against(known: list[Board], binding: str, at: datetime) -> tuple[Reason, ...]:
    """What stands against a key that is bound like this, from what is kept of the tag's keys."""
    standing = {board.binding: board for board in known}
    approved = [board for board in known if board.standing is not Standing.REFUSED]
    if binding in standing and standing[binding].standing is Standing.REFUSED:
        return (Reason(Why.BOARD, "its key is that of a main board that was replaced"),)
    if not approved:
        return ()
    expected = approved[0]
    if expected.until is not None and expected.until <= at:
        return (Reason(Why.BOARD, f"the approval of its repair ended at {expected.until.isoformat()}"),)
    if expected.standing is Standing.APPROVED and expected.binding != binding:
        return (Reason(Why.BOARD, "its key is not the one that was approved with its repair"),)
    return ()


def use(tag: str) -> Transaction[None]:
    """A new board has claimed. An approval of any key is used up; one key that was named stays the only one, for as
    long as no other is named."""
    yield Query("DELETE FROM boards WHERE service_tag = $1 AND standing = 'open'", (tag,))
    yield Query("UPDATE boards SET until = NULL WHERE service_tag = $1 AND standing = 'approved'", (tag,))


def refuse(tag: str, binding: str, now: int) -> Transaction[None]:
    yield from _stand(tag, binding, Standing.REFUSED, now, None)


def expect(tag: str, binding: str, now: int, until: int | None) -> Transaction[None]:
    """From now on this key, or with "" any that is not refused. What was expected before is forgotten."""
    yield Query("DELETE FROM boards WHERE service_tag = $1 AND standing <> 'refused'", (tag,))
    yield from _stand(tag, binding, Standing.APPROVED if binding else Standing.OPEN, now, until)


def _stand(tag: str, binding: str, standing: Standing, now: int, until: int | None) -> Transaction[None]:
    yield Query("INSERT INTO boards (service_tag, binding, standing, since, until) VALUES ($1, $2, $3, $4, $5) "
                "ON CONFLICT (service_tag, binding) DO UPDATE SET standing = $3, since = $4, until = $5",
                (tag, binding, standing.value, now, until))
