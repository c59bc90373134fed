"""What `delegator config check` looks at: a table of checks, each a few lines, each with its next useful action.

The invariant: looking changes nothing; one check that fails keeps no other from being made.
Must not live here: making any of it (pki, sealing, store).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509

from delegator.cli import checking_postgres
from delegator.config import Server, Settings
from delegator.errors import DelegatorError
from delegator.net.reverse import load_domains
from delegator.sealing import read_key_file
from delegator.wire.presented import presented
from pki import Folder, PkiError, pair
from pki.trust import TrustStore, shown

_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A hint says what to do next where it is not in order."""

    what: str
    path: str
    ok: bool
    detail: str
    hint: str = ""

    def as_data(self) -> dict[str, object]:
        return dataclasses.asdict(self)


class _Wrong(Exception):
    """What a check found to be wrong, and what to do."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which a delegator would need things."""
    found = [_made(what, path, check) for what, path, check in _checks(settings)]
    if all(one.ok for one in found):  # then what only shows when they are put together
        found.append(_made("all together", "", lambda: _together(settings)))
    return found


def _together(settings: Settings) -> str:
    """Made as a start would make it."""
    from delegator.parts import prepare

    prepare(settings, lambda: datetime.now(UTC))
    return "a delegator would start with it"


_Check = tuple[str, str, Callable[[], str]]


def _checks(settings: Settings) -> Iterator[_Check]:
    server, callbacks = settings.server, settings.callbacks
    folder = Path(server.ca).parent
    if not folder.exists() or (folder / "ledger.jsonl").exists():
        yield "PKI folder", str(folder), lambda: _pki_folder(folder)
    yield "factory anchors", server.ca, lambda: _trust(server)
    yield from _pair("server", server.certificate, server.key, "server")
    yield from _pair("callbacks", callbacks.certificate, callbacks.key, "delegate --client")
    for name in (settings.sealing.key_file, *settings.sealing.older_key_files):
        yield "sealing key", name, partial(_sealing, name)
    if settings.domains.enabled:
        yield "reverse DNS", settings.domains.label, lambda: _domains(settings)
    if settings.enrolment.enabled:
        yield "enrolment", settings.enrolment.certificate, lambda: _enrolment(settings)
    yield from _mail(settings)
    if settings.store.url:
        yield "database", settings.store.url.partition("?")[0], lambda: checking_postgres.examine(settings.store)
    else:
        yield "database", settings.store.path, lambda: _database(Path(settings.store.path))


def _enrolment(settings: Settings) -> str:
    """The authority that signs online, and its key."""
    from delegator.enrolment import load_authority

    authority = load_authority(settings.enrolment, TrustStore.load(settings.server.ca).anchors)
    assert authority is not None
    _in_time(authority.certificate, "make another: python -m pki init; see docs/enrolment.md")
    end = authority.certificate.not_valid_after_utc
    return f"signs for {settings.enrolment.days} days, until {end:%Y-%m-%d}"


def _mail(settings: Settings) -> Iterator[_Check]:
    """Mail to administrators: all of it where a relay is named; else only whether somebody waits for it."""
    if settings.mail.host:
        yield "mail", settings.mail.host, lambda: _mail_in_order(settings)
    else:
        waiting = _wants_mail(settings)
        if waiting:
            yield "mail", waiting, _no_mail


def _mail_in_order(settings: Settings) -> str:
    from delegator.notify import carriers

    carrier = carriers.mail_carrier(settings, carriers.delegator_name(settings), lambda: datetime.now(UTC))
    assert carrier is not None
    return carriers.check(carrier)


def _no_mail() -> str:
    raise _Wrong("is to be told by mail, but no relay is named: such mail waits", "set [mail] host and sender, see "
                 "docs/notifications.md")


def _wants_mail(settings: Settings) -> str:
    """Delegates with an address to mail to; none from a database that does not open, which is told on its own."""
    if settings.store.url:
        return checking_postgres.mailing(settings.store)
    path = Path(settings.store.path)
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as connection:
        rows = connection.execute("SELECT name FROM delegates WHERE kind = 'hosted' AND "
                                  "json_extract(settings, '$.mail_to') IS NOT NULL ORDER BY name LIMIT 5")
        return ", ".join(str(row[0]) for row in rows)
    return ""


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _pair(section: str, certificate: str, key: str, what: str) -> Iterator[_Check]:
    mint = f"python -m pki {what} {Path(certificate).stem}; or name yours in [{section}] certificate and key"
    yield f"{section} certificate", certificate, lambda: _certificate(certificate, key, mint)
    yield f"{section} key", key, lambda: _key(key, certificate, mint)


def _made(what: str, path: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, path, True, check())
    except (PkiError, DelegatorError, _Wrong) as error:
        return Finding(what, path, False, error.detail, error.hint or "see: docs/operators.md")
    except OSError as error:
        return Finding(what, path, False, error.strerror or str(error), "check the path and who owns it")


def _pki_folder(path: Path) -> str:
    Folder.open(path)
    return "complete and private"


def _trust(server: Server) -> str:
    trust = TrustStore.load(server.ca, server.crl or None, server.issuers or None)
    found = f"{len(trust.anchors)} anchor(s)" + (f", {len(trust.issuers)} issuer(s)" if trust.issuers else "")
    for anchor in trust.anchors:
        _in_time(anchor, "see CA rollover in docs/operators.md")
    if trust.revocation is None:
        return f"{found}, no revocation list"
    if datetime.now(UTC) < trust.revocation.this_update:
        begins = f"{trust.revocation.this_update:%Y-%m-%d %H:%M}Z"
        raise _Wrong(f"the revocation list {server.crl} begins at {begins}: every device would be refused until then",
                     "is this machine's clock right?")
    if not trust.revocation.covers(datetime.now(UTC)):
        raise _Wrong(f"the revocation list {server.crl} is stale: every device would be refused", "python -m pki crl")
    return f"{found}, {len(trust.revocation.serials)} revoked certificate(s)"


def _certificate(path: str, key: str, mint: str) -> str:
    """Read as a start reads it; its order is told here also where the key is not in order."""
    chain = pair.read_chain(Path(path), Path(key), mint)
    wrong = pair.order_fault(chain)
    if wrong is not None:
        raise _Wrong(wrong, pair.ORDER_HINT)
    _in_time(chain[0], f"renew it with --renew: {mint}")
    end = chain[0].not_valid_after_utc
    return f"valid until {end:%Y-%m-%d}" + (", renew it soon" if end <= datetime.now(UTC) + _SOON else "")


def _in_time(certificate: x509.Certificate, hint: str) -> None:
    over = pair.time_fault(certificate, datetime.now(UTC))
    if over is not None:
        raise _Wrong(f"the certificate of {shown(certificate)} {over}", hint)


def _key(path: str, certificate: str, mint: str) -> str:
    presented(Path(certificate), Path(path), mint)
    return "private, and belongs to the certificate"


def _sealing(name: str) -> str:
    read_key_file(Path(name))
    return "private, 32 bytes"


def _domains(settings: Settings) -> str:
    load_domains(settings.domains)
    return f"delegates at {settings.domains.label}.<domain>, asked of {settings.domains.nameservers or 'the system'}"


def _database(path: Path) -> str:
    if not path.exists():
        return _place_for(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _Wrong("can be read by others", f"chmod 600 {path}")
    try:
        with contextlib.closing(_read_only(path)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        raise _Wrong(f"does not open: {error}", "restore it from a backup, or name another in [store] path") from None
    return "opens"


def _place_for(path: Path) -> str:
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise _Wrong(f"is not there, and {above} cannot be written", "check [store] path and who owns that folder")
    return "is not there yet; made at first use"
