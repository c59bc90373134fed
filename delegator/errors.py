"""One family of errors. A kind says how it looks outside; the table below is the only place that knows.

The invariants: what reaches a device is the kind's fault and nothing else; `detail` stays in trail, log and CLI. The
`hint` of a DelegatorError names commands and files that operators have, so the command line and the log tell it, and no
other door does: not devices, not the operators' port, not whom a webhook or mail goes to. Fixed words about what to do,
which come of no error, may stand at the operators' port (readiness).
Must not live here: rendering (doors.calls for SOAP, cli for the terminal).
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from pki.said import said, visible


class Kind(enum.Enum):
    """What went wrong, seen from who must act. The first five are all that a device can be told."""

    MALFORMED = "malformed"
    IDENTITY = "identity"
    NOT_ENTITLED = "not-entitled"
    TRY_LATER = "try-later"
    UNAVAILABLE = "unavailable"
    CONFIGURATION = "configuration"
    UNREACHABLE = "unreachable"
    CONFLICT = "conflict"
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a kind looks to a device (fault, its one public sentence, Retry-After in seconds), a log, a shell, and to
    people and programs that ask by HTTP without SOAP (`http_status`, RFC 9110)."""

    fault: str
    message: str
    retry_after: int | None
    log_level: int
    exit_code: int
    http_status: int


_BARE: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "no answer in time"), (ConnectionResetError, "the other end broke the connection off"),
    (BrokenPipeError, "the other end takes nothing any more"), (ConnectionRefusedError, "the connection was refused"),
    (EOFError, "it was cut in the middle"), (MemoryError, "no memory is left"), (OSError, "the system says no more"))


def words_of(error: BaseException) -> str:
    """Why, in words, for who has the pager: the name of a class alone is no reason, and many errors have no words."""
    if isinstance(error, DelegatorError):
        return error.detail
    words = said(getattr(error, "detail", None) or getattr(error, "strerror", None) or str(error))
    bare = next((words for kind, words in _BARE if isinstance(error, kind)), "an error that says no more")
    return words or f"{bare} ({type(error).__name__})"


def extra(name: str) -> str:
    """What to do where an optional part is missing: an extra of this package, which comes from no index, so from the
    checkout or the wheel that this one came from."""
    return f"install the extra `{name}`: pip install '.[{name}]' in the checkout, or the wheel with [{name}]; see " \
           "Install in docs/operators.md"


CROWDED = "too many at once of one owner or device: "
"""Begins the reason of what was not tried as others of its own are in line: no fault of the store or the delegator."""
_UNAVAILABLE = ("Unavailable", "The service is not available.", None)

APPEARANCES: dict[Kind, Appearance] = {
    Kind.MALFORMED: Appearance("MalformedRequest", "The request was not understood.", None, logging.WARNING, 5, 400),
    Kind.IDENTITY: Appearance("IdentityRejected", "The identity was not accepted.", None, logging.WARNING, 5, 403),
    Kind.NOT_ENTITLED: Appearance("NotEntitled", "Nothing is available for this device.", None, logging.INFO, 5, 403),
    Kind.TRY_LATER: Appearance("TryLater", "Ask again later.", 30, logging.INFO, 75, 503),
    Kind.UNAVAILABLE: Appearance(*_UNAVAILABLE, logging.ERROR, 1, 503),
    Kind.CONFIGURATION: Appearance(*_UNAVAILABLE, logging.ERROR, 3, 500),
    Kind.UNREACHABLE: Appearance(*_UNAVAILABLE, logging.ERROR, 4, 502),
    # What somebody asked for that is not there, or is not as they think, is nothing that breaks here.
    Kind.CONFLICT: Appearance(*_UNAVAILABLE, logging.WARNING, 6, 409),
    Kind.NOT_FOUND: Appearance(*_UNAVAILABLE, logging.WARNING, 1, 404),
}


class DelegatorError(Exception):
    """Anything this program refuses or fails at.

    `detail` is one line for operators and holds no secret; `reasons` lists every reason where there are several;
    `hint` is the next useful action, for operators alone; `retry_after` (seconds) overrides the table's; `alternates`
    are the delegators that may know better, told to the device.
    """

    def __init__(self, kind: Kind, detail: str, *, reasons: tuple[str, ...] = (), hint: str = "",
                 retry_after: int | None = None, alternates: tuple[str, ...] = ()) -> None:
        detail = visible(detail)  # what a peer wrote was made harmless where it came in, and here once more
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.reasons = tuple(map(visible, reasons)) or (detail,)
        self.hint = hint
        self.alternates = alternates
        self.retry_after = APPEARANCES[kind].retry_after if retry_after is None else retry_after

    @property
    def appearance(self) -> Appearance:
        return APPEARANCES[self.kind]


class HeldUp(DelegatorError):
    """Nothing could be looked up: the store's trouble, which says nothing of the device that asks."""

    def __init__(self, error: DelegatorError) -> None:
        super().__init__(error.kind, error.detail, reasons=error.reasons, hint=error.hint,
                         retry_after=error.retry_after)


class Missing(DelegatorError):
    """Something was named that is not there: `noun` and `name` tell what, so that a face that knows what there is can
    suggest what was meant."""

    def __init__(self, noun: str, name: str, detail: str, *, hint: str = "") -> None:
        super().__init__(Kind.NOT_FOUND, detail, hint=hint)
        self.noun = noun
        self.name = name


class Owned(DelegatorError):
    """What was wanted is another customer's. `detail` does not tell whose, since whoever asks may be a customer too;
    `told` does, for a face that only operators see."""

    def __init__(self, detail: str, whose: str, *, hint: str) -> None:
        super().__init__(Kind.CONFLICT, detail, hint=hint)
        self.told = f"{detail}: {whose}"
