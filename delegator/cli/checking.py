"""What `delegator config check` looks at: a table of checks, each a few lines, each with its next useful action.

The invariant: looking changes nothing; one check that fails keeps no other from being made.
Must not live here: making any of it (pki, sealing, store).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import sqlite3
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509

from delegator.cli import checking_delegates, checking_ports, checking_postgres
from delegator.cli.checking_delegates import read_only
from delegator.config import OpsSettings, Server, Settings, Source, Store
from delegator.errors import DelegatorError
from delegator.model import Policy
from delegator.model.hours import is_known
from delegator.net.listening import each
from delegator.net.reverse import SYSTEM, load_domains
from delegator.sealing import SealingKey
from delegator.secrecy import read_secret
from delegator.store import keyring
from delegator.store.engines.sqlite.rehearsal import rehearse_sqlite
from delegator.store.registry import ALL_POLICIES
from delegator.store.rows import policy_of
from delegator.wire.presented import presented
from pki import Folder, PkiError, pair
from pki.errors import system_words
from pki.trust import TrustStore, shown

_SOON = timedelta(days=30)
_NOWHERE = Source(None, {})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A hint says what to do next where it is not in order."""

    what: str
    path: str
    ok: bool
    detail: str
    hint: str = ""
    setting: str = ""
    """The setting that names it, and where that was set."""

    def as_data(self) -> dict[str, object]:
        return dataclasses.asdict(self)


class _Wrong(Exception):
    """What a check found to be wrong, and what to do."""

    def __init__(self, detail: str, hint: str, named: str = "") -> None:
        super().__init__(detail)
        self.detail, self.hint, self.named = detail, hint, named


def examine(settings: Settings, source: Source = _NOWHERE) -> list[Finding]:
    """Every finding, in the order in which a delegator would need things."""
    return [_made(what, path, check, _named(settings, what, path), source)
            for what, path, check in (*_checks(settings, source),
                                      ("all together", "", lambda: _together(settings, source)))]


def _together(settings: Settings, source: Source) -> str:
    """What `serve` will do: made by what a start makes it by, so that what is refused is told in the same words."""
    from delegator.serving.parts import load_key, prepare

    prepare(settings, lambda: datetime.now(UTC))
    rehearsed(settings.store, load_key(settings))
    return checking_ports.together(settings, source) or "a delegator would start with it"


def rehearsed(where: Store, key: SealingKey | None) -> str:
    """What a start would make of the database. Raises DelegatorError as it would."""
    if where.url:
        return checking_postgres.rehearsed(where, key)
    new = keyring.unmade(where)
    if new:
        return _place_for(new)
    return "; ".join(filter(None, (asyncio.run(rehearse_sqlite(Path(where.path), key)).words, keyring.beside(where))))


def _key_if_any(settings: Settings) -> SealingKey | None:
    """A sealing key that is not in order is told on its own."""
    from delegator.serving.parts import load_key

    with contextlib.suppress(DelegatorError):
        return load_key(settings)
    return None


_Check = tuple[str, str, Callable[[], str]]
_NAMED = {
    "PKI folder": "server.ca", "factory anchors": "server.ca", "server certificate": "server.certificate",
    "server key": "server.key", "callbacks certificate": "callbacks.certificate", "callbacks key": "callbacks.key",
    "sealing key": "sealing.key_file", "reverse DNS": "domains.enabled", "enrolment": "enrolment.certificate",
    "mail": "mail.host", "database": "store.path", "database password": "store.password_file",
    "devices' port": "server.host", "open files": "limits.connections", "operators' port": "ops.host"}
"""The setting that names what is looked at."""


_BEGINS_WITH = re.compile(r"\[(\w+)\] (\w+)")
"""As words begin that blame a setting themselves, where there is such a one."""


def _blamed(words: str) -> str:
    said = _BEGINS_WITH.match(words)
    there = said is not None and hasattr(getattr(Settings(), said[1], None), said[2])
    return f"{said[1]}.{said[2]}" if said is not None and there else ""


def _named(settings: Settings, what: str, path: str) -> str:
    """The setting in which what was looked at is changed."""
    if what == "database" and settings.store.url:
        return "store.url"
    return "sealing.older_key_files" if path in settings.sealing.older_key_files else _NAMED.get(what, "")


def _set_in(name: str, source: Source) -> str:
    section, _, key = name.partition(".")
    return f"[{section}] {key}, {source.of(section, key)}" if name else ""


def _checks(settings: Settings, source: Source) -> Iterator[_Check]:
    server, callbacks = settings.server, settings.callbacks
    folder = Path(server.ca).parent
    if not folder.exists() or (folder / "ledger.jsonl").exists():
        yield "PKI folder", str(folder), lambda: _pki_folder(folder)
    yield "factory anchors", server.ca, lambda: _trust(server)
    yield from _pair("server", server.certificate, server.key)
    yield from _pair("callbacks", callbacks.certificate, callbacks.key)
    ops = settings.ops
    yield "devices' port", ", ".join(each(server.host)), lambda: _port(settings, source, server, "server")
    if ops.enabled:
        yield "operators' port", ", ".join(each(ops.host)), lambda: _port(settings, source, ops, "ops")
    yield "open files", "", lambda: checking_ports.open_files(settings)
    for name in (settings.sealing.key_file, *settings.sealing.older_key_files):
        yield "sealing key", name, partial(_sealing, name, settings)
    if settings.domains.enabled:
        yield "reverse DNS", settings.domains.label, lambda: _domains(settings)
    if settings.enrolment.enabled:
        yield "enrolment", settings.enrolment.certificate, lambda: _enrolment(settings)
    yield from _mail(settings)
    key = _key_if_any(settings)
    if settings.store.url:
        yield "database", settings.store.url.partition("?")[0], lambda: checking_postgres.examine(settings.store, key)
    else:
        yield "database", settings.store.path, lambda: _database(settings.store, key)
    yield from checking_delegates.ways(settings.store)
    policies = [one for one in _policies(settings.store) if one.hours]
    if policies:
        yield "hours", ", ".join(one.name for one in policies[:5]), lambda: _hours(policies)
    if settings.store.password_file:
        yield "database password", settings.store.password_file, lambda: _password(settings.store)


def _password(store: Store) -> str:
    _opened("store", store, "password_file")
    read_secret(Path(store.password_file), "password file", "name another in [store] password_file")
    return "private" if store.url else "private, and not used: [store] url names no PostgreSQL"


def _opened(section: str, values: object, *keys: str) -> None:
    """Raises _Wrong with each setting whose file cannot be read: what comes next would only name the file."""
    wrong = [f"[{section}] {key}: {why}" for key in keys if (why := _unreadable(getattr(values, key)))]
    if wrong:
        raise _Wrong("; ".join(wrong), "check the path, who owns it and its mode")


def _unreadable(name: str) -> str:
    """Asked in a way that waits for nobody: a pipe has no end to wait for."""
    try:
        opened = os.open(name or os.devnull, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.read(opened, 1)
        finally:
            os.close(opened)
    except OSError as error:
        return f"{name}: {error.strerror}"
    return ""


def _enrolment(settings: Settings) -> str:
    """The authority that signs online, and its key."""
    from delegator.provisioning.certifying import load_authority

    _opened("enrolment", settings.enrolment, "certificate", "key", "passphrase_file")
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
        waiting = checking_delegates.mailing(settings.store)
        if waiting:
            yield "mail", waiting, _no_mail


def _mail_in_order(settings: Settings) -> str:
    from delegator.notify import carriers

    _opened("mail", settings.mail, "password_file", "ca", "certificate", "key")
    _anchors_of_the_relay(settings.mail.ca)
    carrier = carriers.mail_carrier(settings, carriers.delegator_name(settings), lambda: datetime.now(UTC))
    assert carrier is not None
    return carriers.check(carrier)


def _anchors_of_the_relay(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path or None)
    except ssl.SSLError:
        raise _Wrong(f"[mail] ca: {path} holds no certificate in PEM", 'name who signed the relay\'s certificate, or ""'
                     ) from None


def _no_mail() -> str:
    raise _Wrong("is to be told by mail, but no relay is named: such mail waits", "set [mail] host and sender, see "
                 "docs/notifications.md")


def _pair(section: str, certificate: str, key: str) -> Iterator[_Check]:
    from delegator.serving.parts import minting

    mint = minting(certificate, section)
    yield f"{section} certificate", certificate, lambda: _certificate(certificate, key, mint)
    yield f"{section} key", key, lambda: _key(key, certificate, mint)


def _made(what: str, path: str, check: Callable[[], str], named: str, source: Source) -> Finding:
    """What a check came to. Where it is wrong, that setting is blamed which the check or its words name."""
    try:
        return Finding(what, path, True, check(), setting=_set_in(named, source))
    except (PkiError, DelegatorError, _Wrong) as error:
        blamed = getattr(error, "named", "") or _blamed(error.detail) or named
        hint = error.hint or "see: docs/operators.md"
        return Finding(what, path, False, error.detail, hint, _set_in(blamed, source))
    except OSError as error:
        hint = "check the path and who owns it"
        return Finding(what, path, False, system_words(error), hint, _set_in(named, source))


def _pki_folder(path: Path) -> str:
    from delegator.serving.parts import FIRST

    if not path.exists():
        raise _Wrong(f"{path} does not exist", FIRST)
    Folder.open(path)
    return "complete and private"


def _trust(server: Server) -> str:
    _opened("server", server, "ca", "crl", "issuers")
    trust = _loaded(server)
    found = f"{len(trust.anchors)} anchor(s)" + (f", {len(trust.issuers)} issuer(s)" if trust.issuers else "")
    for anchor in trust.anchors:
        _in_time(anchor, "see CA rollover in docs/operators.md")
    if trust.revocation is None:
        return f"{found}, no revocation list"
    if datetime.now(UTC) < trust.revocation.this_update:
        begins = f"{trust.revocation.this_update:%Y-%m-%d %H:%M}Z"
        raise _Wrong(f"the revocation list {server.crl} begins at {begins}: every device would be refused until then",
                     "is this machine's clock right?", "server.crl")
    if not trust.revocation.covers(datetime.now(UTC)):
        raise _Wrong(f"the revocation list {server.crl} is stale: every device would be refused", "python -m pki crl",
                     "server.crl")
    return f"{found}, {len(trust.revocation.serials)} revoked certificate(s)"


def _loaded(server: Server) -> TrustStore:
    """As a start loads it. Three settings name files here; that one is blamed whose file the words begin with."""
    try:
        return TrustStore.load(server.ca, server.crl or None, server.issuers or None)
    except PkiError as error:
        key = next((key for key in ("ca", "issuers", "crl") if error.detail.startswith(
            (f"{getattr(server, key)}:", f"{getattr(server, key)} "))), "ca")
        raise _Wrong(error.detail, error.hint, f"server.{key}") from None


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


def _port(settings: Settings, source: Source, where: Server | OpsSettings, section: str) -> str:
    """Whether a start would have it; one that a delegator of these settings has is in order."""
    try:
        return checking_ports.told(settings, source, where.host, where.port)
    except checking_ports.Taken as taken:
        raise _Wrong(taken.detail, "fine if that is your delegator; else stop it, or choose another port",
                     f"{section}.port") from None


def _sealing(name: str, settings: Settings) -> str:
    keyring.read(name, settings.sealing, settings.store)
    return "private, 32 bytes"


def _domains(settings: Settings) -> str:
    if settings.domains.trust_anchor != SYSTEM:
        _opened("domains", settings.domains, "trust_anchor")
    load_domains(settings.domains)
    _domain_policy(settings)
    return f"delegates at {settings.domains.label}.<domain>, asked of {settings.domains.nameservers or 'the system'}"


def _policies(where: Store) -> list[Policy]:
    """All of them; none from a database that does not open, which is told on its own."""
    if where.url:
        return checking_postgres.policies(where)
    path = Path(where.path)
    if path.is_file():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(path)) as connection:
            return [policy_of(row) for row in connection.execute(ALL_POLICIES.sql)]
    return []


def _domain_policy(settings: Settings) -> None:
    """A policy that is not there refuses every device that is found so."""
    name = settings.domains.policy
    if name and name not in {one.name for one in _policies(settings.store)}:
        raise _Wrong(f"[domains] policy: there is no policy named {name}", f"delegator policies add {name}; or see: "
                      "delegator policies list")


def _hours(policies: list[Policy]) -> str:
    """A zone that this machine does not know opens nothing."""
    wrong = [f"{one.name}: {opening.zone}" for one in policies for opening in one.hours if not is_known(opening.zone)]
    if wrong:
        raise _Wrong(f"this machine does not know the time zone of policy {'; '.join(wrong)}", "update the package "
                      "tzdata, of the system or of Python, or write the hours with a zone that is known here")
    return "time zones are known here"


def _database(where: Store, key: SealingKey | None) -> str:
    """First what keeps a delegator from starting, then what should not be and does not."""
    path, words = Path(where.path), rehearsed(where, key)
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _Wrong("can be read by others", f"chmod 600 {path}")
    return words


def _place_for(path: Path) -> str:
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise _Wrong(f"is not there, and {above} cannot be written", "check [store] path and who owns that folder")
    return "is not there yet; made at first use, new and empty: if there was one, put it back, or restore a copy"
