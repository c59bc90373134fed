"""The delegate's composition: settings become a running server. Start, reload, drain, end.

The invariants: nothing listens before everything it needs was checked; a reload that fails changes nothing; a
request in hand at the end is answered, as far as the drain time allows.
Must not live here: decisions, formats.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from delegator.delegate import provisioning
from delegator.delegate.ledger import Ledger, open_ledger
from delegator.delegate.server import Server
from delegator.delegate.settings import Delegate, Settings
from delegator.errors import DelegatorError, Kind
from delegator.model.places import authority
from delegator.net.listening import Place
from delegator.net.serve import Deadlines, Listener
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.wire.certificate import host_of
from delegator.wire.tls import TlsContext, server_context
from pki import PkiError
from pki.trust import TrustStore

log = logging.getLogger(__name__)
HOUSEKEEPING = 15.0
"""Seconds between rounds: passwords that nobody may use any more are forgotten, changed certificates are read."""
DEADLINES = Deadlines(writing=60.0)
"""Provisioning data may have megabytes and a device a slow link."""


def now() -> datetime:
    return datetime.now(UTC)


def _context(settings: Delegate) -> TlsContext:
    """Asks every peer for a certificate and takes none as well: devices show a credential instead."""
    try:
        trust = TrustStore.load(settings.ca, settings.crl or None)
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=error.hint) from None
    return server_context(Path(settings.certificate), Path(settings.key), trust, now, require_certificate=False)


def _name(settings: Delegate) -> str:
    """Who we are to a caller that does not say how it knows us."""
    return host_of(Path(settings.certificate).read_bytes()) or socket.gethostname()


def _sealing_key(settings: Delegate) -> SealingKey:
    """The key; a first start makes it, a later one does not: what is in the database would not open any more."""
    path = Path(settings.sealing_key)
    if not path.exists():
        if Path(settings.database).exists():
            raise DelegatorError(Kind.CONFIGURATION, f"sealing key {path} is gone, and {settings.database} needs it",
                                 hint="restore the key, or move the database away to start anew")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_key_file(path)
        log.warning("made a new sealing key, %s: keep it, and apart from backups of the database", path)
    return SealingKey(read_key_file(path))


def _check(settings: Delegate) -> None:
    if not settings.delegators:
        raise DelegatorError(Kind.CONFIGURATION, "no delegator is named, so nobody could call",
                             hint='set [delegate] delegators = ["delegator.example"], or --delegator NAME')
    provisioning.check(Path(settings.data))


async def serve(settings: Settings, ready: Callable[[tuple[Place, ...]], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads certificates, anchors and lists anew. `ready` is told the addresses.
    Raises DelegatorError (CONFIGURATION)."""
    mine = settings.delegate
    _check(mine)
    context, name = _context(mine), _name(mine)
    ledger = await open_ledger(Path(mine.database), _sealing_key(mine), timedelta(minutes=mine.grace))
    try:
        await ledger.wipe(now())
        server = Server(ledger, frozenset(mine.delegators), Path(mine.data), now,
                        lifetime=timedelta(hours=mine.lifetime), url=mine.public_url,
                        here=lambda: authority(name, listener.places[0][1]))
        listener = Listener(context, server.answer, deadlines=DEADLINES, on_refused=server.refused)
        listener.unreadable = server.unreadable
        await _listen(mine, listener, ledger, ready)
    finally:
        await ledger.close()


async def _listen(settings: Delegate, listener: Listener, ledger: Ledger,
                  ready: Callable[[tuple[Place, ...]], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, listener, settings)
    keeping = asyncio.create_task(_keep_house(ledger, listener, settings))
    try:
        listener.listen(settings.host, settings.port)
        ready(listener.places)
        await stopping.wait()
        log.info("stopping: requests in hand have %g s", settings.drain)
    finally:
        await listener.close(settings.drain)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def _reload(listener: Listener, settings: Delegate) -> None:
    try:
        listener.context = _context(settings)
    except DelegatorError as error:
        log.error("reload: %s; what was loaded before stays", error.detail)
    else:
        log.info("reload: certificates, anchors and revocation lists are fresh")


def _stamp(settings: Delegate) -> tuple[int, ...]:
    paths = [Path(name) for name in (settings.certificate, settings.key, settings.ca, settings.crl) if name]
    return tuple(path.stat().st_mtime_ns for path in paths if path.exists())


async def _keep_house(ledger: Ledger, listener: Listener, settings: Delegate) -> None:
    """A renewed certificate or a new revocation list takes effect without anybody sending a signal."""
    stamp = _stamp(settings)
    while True:
        await asyncio.sleep(HOUSEKEEPING)
        before, stamp = stamp, _stamp(settings)
        if before != stamp:
            _reload(listener, settings)
        try:
            await ledger.wipe(now())
        except DelegatorError as error:
            log.error("wiping: %s", error.detail)
