"""The life of a claim as one table: from where, by what, to where, who does it, with which command, noted as what.

The store makes its statements from this table, the database refuses any other change of state (schema 0005), and
docs/claims.md is drawn from it.
The invariants: each event has one command and one act, so that each change of state leaves one row of audit; a
claim that was expired or released never lives again.
Must not live here: when an event happens (store.claims, store.ownership), pictures (scripts/claims_page).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from delegator.model.audited import Act
from delegator.model.claimed import ClaimState
from delegator.model.word import Word

_ASKING, _ISSUED, _CONFIRMED = ClaimState.ASKING, ClaimState.ISSUED, ClaimState.CONFIRMED
_EXPIRED, _RELEASED = ClaimState.EXPIRED, ClaimState.RELEASED
LIVE = (_ASKING, _ISSUED, _CONFIRMED)
"""States that hold the tag and a place."""
_HELD = (*LIVE, _EXPIRED)
"""What an operator's command lets go of: an expired claim holds nothing but counts as an attempt."""


class Event(Word):
    """What can happen to a claim, in a few words."""

    ASKED = "asked"
    SERVED = "asked and answered at once"
    ANSWERED = "delegate answered"
    DEPLOYED = "deployed"
    FAILED = "failed"
    LAPSED = "lease over"
    REROUTED = "route changed"
    RELEASED = "released"
    RETURNED = "returned to stock"
    TRANSFERRED = "transferred"
    REPAIRED = "main board replaced"


class Move(msgspec.Struct, frozen=True):
    """One row of the table. `before` None is the beginning; `why` is for the reader of the page."""

    event: Event
    before: tuple[ClaimState | None, ...]
    after: ClaimState
    who: str
    command: str
    act: Act
    why: str


_ASKS = "`GetProvisioningCredential`"
_DEVICE, _OPERATOR, _DELEGATOR = "device", "operator", "delegator"
TABLE: dict[Event, Move] = {move.event: move for move in (
    Move(Event.ASKED, (None,), _ASKING, _DEVICE, _ASKS, Act.CLAIM_ASKED,
         "On record before the delegate is called."),
    Move(Event.SERVED, (None,), _ISSUED, _DEVICE, _ASKS, Act.CLAIM_ISSUED,
         "Settings kept here need no call: opened and issued in one commit."),
    Move(Event.ANSWERED, (_ASKING,), _ISSUED, _DEVICE, _ASKS, Act.CLAIM_ISSUED,
         "The delegate answered; the credential is sealed before it is sent."),
    Move(Event.DEPLOYED, (_ISSUED,), _CONFIRMED, _DEVICE, "`ConfirmProvisioning`", Act.CLAIM_CONFIRMED,
         "The credential is wiped; the tag stays taken."),
    Move(Event.FAILED, (_ISSUED,), _ISSUED, _DEVICE, "`ConfirmProvisioning`", Act.CLAIM_FAILED,
         "Kept on record; the device may ask again within its lease."),
    Move(Event.LAPSED, (_ASKING, _ISSUED), _EXPIRED, _DELEGATOR, "housekeeping, or the next call for the tag",
         Act.CLAIM_EXPIRED, "The credential is wiped, the place given back; an attempt is used up."),
    Move(Event.REROUTED, (_ASKING,), _EXPIRED, _DELEGATOR, "the next call, at the delegate that is right now",
         Act.CLAIM_EXPIRED, "A try that broke off at a delegate that no longer serves the device."),
    Move(Event.RELEASED, _HELD, _RELEASED, _OPERATOR, "`delegator claims release`", Act.CLAIM_RELEASED,
         "Provisioned anew for the same customer, as after a factory reset."),
    Move(Event.RETURNED, _HELD, _RELEASED, _OPERATOR, "`delegator devices return`", Act.CLAIM_RELEASED,
         "Back to stock: nobody owns the device."),
    Move(Event.TRANSFERRED, _HELD, _RELEASED, _OPERATOR, "`delegator transfers accept`", Act.CLAIM_RELEASED,
         "The old owner's credential is wiped in the commit that makes the new owner."),
    Move(Event.REPAIRED, _HELD, _RELEASED, _OPERATOR, "`delegator devices repair`", Act.CLAIM_RELEASED,
         "The old board's key is refused from then on."),
)}


def edges() -> Iterator[tuple[ClaimState | None, Move]]:
    """The table one state at a time: (before, row)."""
    for move in TABLE.values():
        for before in move.before:
            yield before, move


def changes() -> frozenset[tuple[ClaimState, ClaimState]]:
    """Every change of a claim that exists from one state to another."""
    return frozenset((before, move.after) for before, move in edges() if before not in (None, move.after))


def as_set(event: Event) -> str:
    """The assignment of an UPDATE by this event."""
    return f"state = '{TABLE[event].after.value}'"


def as_where(event: Event) -> str:
    """The condition of an UPDATE by this event: nothing happens to a claim that is elsewhere in its life."""
    names = ", ".join(f"'{state.value}'" for state in TABLE[event].before if state is not None)
    return f"state IN ({names})"


def freeing(tag: str) -> str:
    """What to do about a claim that stands in the way: which command it is depends on what happened to the device."""
    return (f"if it was reset, for the same owner: delegator claims release {tag}; if it was sent back: delegator "
            f"devices return {tag}")
