"""Why an activation failed: one table of reasons, each with its number, exit code and what the device does next.

The invariant: every failure of an activation is one row of REASONS, in the order of the way of one attempt, so
that the higher number got further. `docs/device-makers.md` prints this table and a test compares the two.
Must not live here: how a failure is recognised (tls, exchange, answers), when it is retried (retry).
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from delegator.device.addresses import Address

_FIRST_EXIT_CODE = 20


class Reason(NamedTuple):
    """One row: `elsewhere` = another address may know better. None of them ends the run: nothing that a server says
    may stop a device for good, and what it says today it may say otherwise tomorrow."""

    number: int
    name: str
    meaning: str
    look_at: str
    elsewhere: bool = False

    @property
    def exit_code(self) -> int:
        return _FIRST_EXIT_CODE + self.number

    @property
    def then(self) -> str:
        """What the device does next, in words."""
        return "next address, then retries" if self.elsewhere else "retries"


NAME_NOT_FOUND = Reason(
    1, "name-not-found", "the delegator's host name has no address",
    "the spelling in --delegator; the device's DNS server", elsewhere=True)
NO_ROUTE = Reason(
    2, "no-route", "no way to the delegator, or nobody answered in time",
    "cable, gateway, firewall, proxy; does the address exist?", elsewhere=True)
NOTHING_LISTENING = Reason(
    3, "nothing-listening", "the host is there, but nothing listens on that port",
    "is the delegator running? is the port right (4433)?", elsewhere=True)
TLS_REFUSED = Reason(
    4, "tls-refused", "the other side hung up during the TLS handshake without saying why",
    "is this really a delegator's port? a firewall that looks into TLS?", elsewhere=True)
TLS_FAILED = Reason(
    5, "tls-failed", "TLS failed for another cause: no common version, cipher or key type, or not TLS at all",
    "the alert or error in the log; both sides need TLS 1.2 or 1.3", elsewhere=True)
CLOCK_NOT_SET = Reason(
    6, "clock-not-set", "the server's certificate is not valid yet by this device's clock",
    "the device's clock (the log shows it); then the certificate's first day", elsewhere=True)
SERVER_NOT_TRUSTED = Reason(
    7, "server-not-trusted", "the server's certificate does not lead to the factory CA, or has expired",
    "is --ca the factory CA that signed the delegator's certificate? has that certificate ended? is the device's clock "
    "right?", elsewhere=True)
SERVER_NAME_MISMATCH = Reason(
    8, "server-name-mismatch", "the server's certificate is genuine but made for another name",
    "the name in --delegator against the certificate's names; --server-name", elsewhere=True)
CLIENT_REFUSED = Reason(
    9, "client-refused", "the delegator did not accept this device's certificate",
    "the alert in the log: expired, revoked, or signed by a CA the delegator does not know", elsewhere=True)
NO_ANSWER = Reason(
    10, "no-answer", "the delegator took the question but its answer did not come, or was cut off",
    "the delegator's log at that moment; a proxy in between", elsewhere=True)
ANSWER_NOT_UNDERSTOOD = Reason(
    11, "answer-not-understood", "the answer is not the SOAP answer that was expected",
    "is this a delegator? do both sides speak the same version?", elsewhere=True)
UNAVAILABLE = Reason(
    12, "unavailable", "the delegator says: my own fault (SOAP fault Unavailable)",
    "the delegator's log", elsewhere=True)
MALFORMED_REQUEST = Reason(
    13, "malformed-request", "the delegator did not understand the question (SOAP fault MalformedRequest)",
    "the form of the service tag and of the certificate request", elsewhere=True)
IDENTITY_REJECTED = Reason(
    14, "identity-rejected", "the certificate does not belong to this service tag (SOAP fault IdentityRejected)",
    "--tag against the certificate's common name; must the device use a certificate of its own?", elsewhere=True)
NOT_ENTITLED = Reason(
    15, "not-entitled", "the delegator has nothing for this device now (SOAP fault NotEntitled)",
    "has the owner registered the device? does an older claim hold its tag (after --again, or without its state "
    "folder)? the delegator's `explain` command tells")
TRY_LATER = Reason(
    16, "try-later", "the delegator asks for patience (SOAP fault TryLater)",
    "nothing: the device waits as long as it was told")
NO_CREDENTIAL = Reason(
    17, "no-credential", "the answer holds no user name or no password",
    "what the owner's delegate answers")
UNUSABLE_CREDENTIAL = Reason(
    18, "unusable-credential", "user name or password does not fit this device, or the delegate refused them (401)",
    "lengths against --max-user and --max-password; the delegate's log")
DELEGATE_UNREACHABLE = Reason(
    19, "delegate-unreachable", "the owner's server cannot be reached, or its answer was cut off",
    "the delegate's URL in the log; the owner's firewall")
DELEGATE_NOT_TRUSTED = Reason(
    20, "delegate-not-trusted", "the owner's server does not prove itself by the trust anchor that was handed over",
    "the trust anchor, name and dates of the delegate's certificate")
DELEGATE_FAILED = Reason(
    21, "delegate-failed", "the owner's server gave no usable provisioning data",
    "the HTTP status, or what is wrong with the document, in the log; what the owner's server sends")
HOOK_FAILED = Reason(
    22, "hook-failed", "the hook command could not apply the data",
    "run the hook by hand with the stored files; its words are on standard error")
OWN_TROUBLE = Reason(
    23, "own-trouble", "something on this device itself failed, which may pass",
    "disk, memory and the program named in the log")

REASONS = (
    NAME_NOT_FOUND, NO_ROUTE, NOTHING_LISTENING, TLS_REFUSED, TLS_FAILED, CLOCK_NOT_SET, SERVER_NOT_TRUSTED,
    SERVER_NAME_MISMATCH, CLIENT_REFUSED, NO_ANSWER, ANSWER_NOT_UNDERSTOOD, UNAVAILABLE, MALFORMED_REQUEST,
    IDENTITY_REJECTED, NOT_ENTITLED, TRY_LATER, NO_CREDENTIAL, UNUSABLE_CREDENTIAL, DELEGATE_UNREACHABLE,
    DELEGATE_NOT_TRUSTED, DELEGATE_FAILED, HOOK_FAILED, OWN_TROUBLE,
)


class Failure(Exception):
    """One attempt failed. `detail` is for a person and never holds a secret; `retry_after` is in seconds;
    `ask_at` are the delegators that the one that refused named instead of itself. `proven` is whether it came from a
    server that had proven itself: until then anybody on the way can say anything. `unforeseen` is an error that nobody
    thought of: where it came from is not gone back to."""

    def __init__(self, reason: Reason, detail: str = "", retry_after: int | None = None,
                 ask_at: tuple[Address, ...] = ()) -> None:
        self.detail = shown(detail)
        super().__init__(f"{reason.meaning} ({self.detail})" if detail else reason.meaning)
        self.reason = reason
        self.retry_after = retry_after
        self.ask_at = ask_at
        self.proven = self.unforeseen = False


class Misconfigured(Exception):
    """Something a person must put right before any attempt makes sense (exit code 3)."""


class Busy(Exception):
    """Another activation is at work in the same state folder (exit code 6)."""


_SHOWN = 400
"""Characters of what others said that a person is shown."""


def shown(text: str) -> str:
    """Words that may be somebody else's, so that a line stays one line: no control characters, no writing from right
    to left where that was not asked for, and an end."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)


def system_words(error: Exception) -> str:
    """What the system said, with the file it said it of, and without its number."""
    name = getattr(error, "filename", None)
    words = getattr(error, "strerror", None) or str(error)
    return f"{name}: {words}" if isinstance(name, str) else words


_MAY_PASS = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN, errno.EINTR,
                       errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EDQUOT, errno.ETXTBSY})
"""What the system says of its own state and not of a file: no person need come for it."""


def own_error(what: str, error: Exception, why: str = "") -> Exception:
    """The error for a file of this device's own: a person's to mend, or trouble that may pass."""
    words = f"{what}: {why or system_words(error)}"
    return Failure(OWN_TROUBLE, words) if may_pass(error) else Misconfigured(words)


def may_pass(error: Exception) -> bool:
    """Whether the system may say otherwise a moment later."""
    ours = isinstance(error, OSError) and not hasattr(error, "library")  # OpenSSL's have numbers of their own
    return ours and getattr(error, "errno", None) in _MAY_PASS


def table() -> str:
    """The reasons as a Markdown table: what `delegator device reasons` and the documentation print."""
    rows = [f"| {r.number} | `{r.name}` | {r.exit_code} | {r.meaning} | {r.look_at} | {r.then} |" for r in REASONS]
    return "\n".join(["| n | reason | exit code | meaning | look at | the device then |",
                      "| --- | --- | --- | --- | --- | --- |", *rows])
