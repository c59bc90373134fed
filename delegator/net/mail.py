"""One mail to the operator's relay by SMTP: STARTTLS or TLS, then authentication (RFC 6409, 3207, 4954).

aiosmtplib comes with the extra `mail` and is loaded at the first mail, so that nobody else needs it.
The invariants: without TLS nothing leaves this machine, and no relay can talk us out of it (RFC 3207 section 6);
every attempt ends within the relay's time-out, and what a relay may make us digest meanwhile is bounded.
Must not live here: the connection and its TLS (submission), what a mail says, signing (wire.mail), when to try again
(notify).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography import x509

from delegator.errors import DelegatorError, Kind, extra
from delegator.model import Secret
from delegator.model.places import authority, is_loopback, normal_host
from delegator.net.aside import aside
from delegator.net.submission import RelayFailed, relay_line
from delegator.wire.tls import TlsContext, calling
from pki import PkiError
from pki.said import said
from pki.trust import TrustStore, read_anchors

_GOODBYE = 1.0


class Security(enum.Enum):
    """How the connection to the relay is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed over. `ca` is the file of whom to trust there, "" for the system's authorities; `name` is
    what we say who we are."""

    host: str
    port: int
    security: Security
    name: str
    timeout: float
    user: str = ""
    password: Secret | None = None
    ca: str = ""

    def check(self) -> None:
        """Raises DelegatorError (CONFIGURATION) for a relay that must not be used like that."""
        if self.security is Security.NONE and not is_loopback(self.host):
            raise DelegatorError(Kind.CONFIGURATION, f"mail relay {self.host}: security none is for this machine only",
                                 hint='set [mail] security = "starttls"')
        if self.security is Security.NONE and self.user:
            raise DelegatorError(Kind.CONFIGURATION, f"mail relay {self.host}: no password is sent without TLS",
                                 hint='set [mail] security = "starttls", or leave user away')


def smtp_library() -> ModuleType:
    """aiosmtplib. Raises DelegatorError (CONFIGURATION) where it is not installed."""
    try:
        import aiosmtplib
    except ImportError:
        raise DelegatorError(Kind.CONFIGURATION, "mail needs aiosmtplib, which is not installed",
                             hint=extra("mail")) from None
    return aiosmtplib


async def send(relay: Relay, sender: str, recipient: str, message: bytes) -> str:
    """Hand a mail over; what the relay said. Raises DelegatorError (UNREACHABLE, CONFIGURATION)."""
    relay.check()
    library = smtp_library()
    try:
        async with asyncio.timeout(relay.timeout):
            return await _send(library, relay, sender, recipient, message)
    except TimeoutError:
        raise _failed(relay, f"no answer within {relay.timeout:g} s") from None
    except (OSError, RelayFailed, library.SMTPException) as error:
        raise _failed(relay, _said(error)) from None
    except DelegatorError as error:
        raise error if error.kind is Kind.CONFIGURATION else _failed(relay, error.detail) from None
    except Exception:  # whatever its replies did to the library; the words may hold anything, a password too
        raise _failed(relay, "it answers what cannot be read") from None


async def _send(library: ModuleType, relay: Relay, sender: str, recipient: str, message: bytes) -> str:
    context = None if relay.security is Security.NONE else await aside(partial(_context, relay.ca),
                                                                       "reading whom to trust at the relay")
    host, starttls = normal_host(relay.host), relay.security is Security.STARTTLS
    async with relay_line(host, relay.port, context, starttls=starttls, called=relay.name) as valve:
        client = library.SMTP(sock=valve.inner, local_hostname=relay.name, timeout=relay.timeout, start_tls=False)
        try:
            await client.connect()
            if relay.password is not None:
                await client.login(relay.user, relay.password.reveal())
            _, reply = await client.sendmail(sender, [recipient], message)
            await _goodbye(library, client)
        finally:
            if client.transport is not None:
                client.transport.abort()
            client.close()
    return _words(reply)


async def _goodbye(library: ModuleType, client: Any) -> None:
    """The relay has taken the mail already: whatever becomes of QUIT, it is not to be sent again."""
    with contextlib.suppress(OSError, TimeoutError, library.SMTPException):
        async with asyncio.timeout(_GOODBYE):
            await client.quit()


def _context(ca: str) -> TlsContext:
    """Beside the loop: reading the system's hundred and more authorities takes milliseconds. A file of the operator's
    own is believed whole or not at all."""
    return calling(None, TrustStore(relay_anchors(ca) if ca else ()), lambda: datetime.now(UTC), system=not ca)


def relay_anchors(ca: str) -> tuple[x509.Certificate, ...]:
    """Raises DelegatorError (CONFIGURATION)."""
    try:
        return read_anchors(Path(ca), "name the authorities of your relay in [mail] ca")
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[mail] ca: {error.detail}", hint=error.hint) from None


def _failed(relay: Relay, why: str) -> DelegatorError:
    return DelegatorError(Kind.UNREACHABLE, f"mail relay {authority(relay.host, relay.port)}: {why}")


def _said(error: Exception) -> str:
    """The relay's own words where there are some; aiosmtplib keeps refusals of a recipient one level down."""
    inner = getattr(error, "recipients", None)
    if inner:
        error = inner[0]
    code, text = getattr(error, "code", None), getattr(error, "message", None)
    plain = _words(text or getattr(error, "strerror", None) or error) or "the connection broke"
    return plain if code is None else f"{code} {plain}"


def _words(reply: object) -> str:
    """A relay's own words. aiosmtplib has bytes that are no UTF-8 as halves of characters (PEP 383), which nothing
    can write: no database and no log."""
    return said(str(reply).encode("utf-8", "surrogateescape"))
