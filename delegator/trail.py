"""The trail: the ordered steps of one handshake with their timings. One truth, many views.

Log line, audit row, metric labels, the demo's plain words and the diagram in the docs are all read from here.
The invariant: steps only ever come later in the table than the one before (block numbers of the patent's
figure 2), and no step ever carries a secret.
Must not live here: a clock (callers pass nanoseconds), formats of logs or metrics.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

import msgspec

CALLBACK_FAILED = "callback failed: "
"""How a reason begins that tells why a delegate gave no credential."""
LEFT_OUT = "left_out"
"""The fact that holds hints of the device that were not of their form (wire.reading), in words."""
CONNECTION: ContextVar[str] = ContextVar("connection", default="")
"""The id of the connection that the running code serves; every line logged meanwhile carries it."""


class Step(enum.Enum):
    """The walk of one handshake: (order, patent block, plain words)."""

    CONNECTED = (1, 205, "The device connected")
    AUTHENTICATED = (2, 210, "Both sides proved who they are by certificate")
    ASKED = (3, 212, "The device made its call")
    IDENTIFIED = (4, 213, "The delegator worked out which device this is")
    LOOKED_UP = (5, 213, "The DNS was asked whose domain its address is in")
    ROUTED = (6, 213, "The delegator found the customer that owns it")
    DECIDED = (7, 214, "The customer's policy was checked")
    CLAIMED = (8, 214, "The claim was written down before anything left the house")
    PASSED_OVER = (9, 215, "A delegate gave no credential")
    CALLED_BACK = (9, 215, "The customer's delegate gave the credential")
    ISSUED = (10, 215, "The credential was sealed and made durable")
    CONFIRMED = (11, 218, "The device told how provisioning ended")
    REFUSED = (12, 210, "The device was turned away")
    ANSWERED = (13, 216, "The answer went back to the device")

    def __init__(self, order: int, block: int, words: str) -> None:
        self.order = order
        self.block = block
        self.words = words
        self.called = self._name_.lower()  # `name` is a property, dear enough to be seen nine times a handshake


class Mark(msgspec.Struct, frozen=True):
    """One step taken: when (nanoseconds of the monotonic clock) and what there is to say about it."""

    step: Step
    at: int
    note: str = ""


@dataclass(slots=True)
class Trail:
    """The growing record of one connection's handshake. `facts` holds labels: outcome, tag, customer, delegate."""

    connection: str
    peer: str
    marks: list[Mark] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    on_record: bool = False
    """Whether a row of audit, that of a claim's change, holds it already."""
    unanswered: list[str] = field(default_factory=list)
    """Delegates that were asked for the credential and gave none, once for each time."""
    registered: bool = False
    """Whether the device's own registration, by its tag, says whose it is."""
    genuine: bool = False
    """Whether TLS refused a certificate that one of our authorities did sign."""
    shown: bytes = b""
    """The refused certificate (DER) where it is not known who signed it."""
    _order: int = 0
    """That of the last step."""

    def mark(self, step: Step, at: int, note: str = "") -> None:
        """Take a step. Raises ValueError when it would go back: a step out of order is a bug, not a record."""
        order = step.order
        if order < self._order:
            raise ValueError(f"step {step.name} after {self.marks[-1].step.name}")
        self._order = order
        self.marks.append(Mark(step, at, note))

    @property
    def milliseconds(self) -> float:
        """From the first step to the last."""
        return (self.marks[-1].at - self.marks[0].at) / 1e6 if self.marks else 0.0

    def as_data(self) -> dict[str, object]:
        """The trail as plain data: what a log line, an audit row or a script reads."""
        start = self.marks[0].at if self.marks else 0
        return {
            "connection": self.connection, "peer": self.peer, **self.facts,
            "reasons": list(self.reasons), "milliseconds": round(self.milliseconds, 3),
            "steps": [{"step": mark.step.called, "block": mark.step.block, "note": mark.note,
                       "at_ms": round((mark.at - start) / 1e6, 3)} for mark in self.marks],
        }

    def as_kept(self) -> dict[str, object]:
        """The trail so far as a row of audit holds it: short, as there is one for each handshake, and without what
        the row says in columns. Whoever takes it puts it on record."""
        self.on_record = True
        start = self.marks[0].at if self.marks else 0
        kept: dict[str, object] = {fact: said for fact, said in self.facts.items() if fact not in _COLUMNS}
        kept["connection"] = self.connection
        kept["steps"] = [[mark.step.called, round((mark.at - start) / 1e6, 3), mark.note] for mark in self.marks]
        return kept


_COLUMNS = frozenset(("tag", "customer", "delegate", "outcome"))
"""Facts that a row of audit has columns for."""


def from_kept(kept: Mapping[str, object]) -> dict[str, object]:
    """What `as_kept` gave, as `as_data` would have spelled it."""
    steps = kept.get("steps")
    assert isinstance(steps, list)
    return {**kept, "steps": [{"step": name, "block": Step[name.upper()].block, "note": note, "at_ms": at_ms}
                              for name, at_ms, note in steps]}


def tell(data: dict[str, object]) -> list[str]:
    """A trail in plain words, a line a step, for people who see it for the first time."""
    lines = []
    steps = data["steps"]
    assert isinstance(steps, list)
    for number, step in enumerate(steps, 1):
        words = Step[str(step["step"]).upper()].words
        note = f": {step['note']}" if step["note"] else ""
        lines.append(f"{number:>2}. {step['at_ms']:>7.1f} ms  {words}{note}  [block\u00a0{step['block']}]")
        if step["step"] == Step.ASKED.called and data.get(LEFT_OUT):
            lines.append(f"{'':>16}left out of it: {data[LEFT_OUT]}")
    return lines
