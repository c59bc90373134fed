"""Who plays: three devices that are activated before one's eyes, and others that wait to be tried by hand.

Must not live here: files, processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One device. `customer` is None for the one that nobody bought."""

    tag: str
    identity: str
    customer: str | None
    story: str = ""


ACTS = (
    Part("ACMESRV01", "own", "acme",
         "A server that Acme bought. It has its own handshake certificate, so the delegator knows exactly which "
         "device it is. Acme runs a delegate of its own; it will give the credential."),
    Part("GLOBEX001", "shared", "globex",
         "A tablet that Globex bought. It has only the certificate that all devices share, so its service tag is a "
         "mere claim. Globex allows that for devices it has registered, and lets the delegator keep the credential. "
         "With it comes a certificate of its own."),
    Part("NOBODY001", "stranger", None,
         "A genuine device that no customer has registered. It must get nothing, and must not learn why."),
)
WAITING = (
    Part("ACMESRV02", "own", "acme"),
    Part("GLOBEX002", "shared", "globex"),
    Part("NOBODY002", "stranger", None),
)


def waiting(more: int) -> tuple[Part, ...]:
    """The devices to be tried by hand or by a script: one of each kind, and `more` with own certificates."""
    return WAITING + tuple(Part(f"MORE{number:07d}", "own", "globex") for number in range(1, more + 1))


def tags(cast: Sequence[Part]) -> Iterator[str]:
    """Those that have a certificate of their own."""
    return (part.tag for part in cast if part.identity != "shared")
