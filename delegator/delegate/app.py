"""The delegate's composition: settings become a running server. Start, reload, drain, end.

The invariants: nothing listens before everything it needs was checked; a reload that fails changes nothing; a
request in hand at the end is answered, as far as the drain time allows.
Must not live here: decisions, formats.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from delegator.clockwork.clocks import Clock
from delegator.clockwork.rounds import Chore, Rota
from delegator.delegate import provisioning
from delegator.delegate.ledger import Ledger, open_ledger
from delegator.delegate.server import Server
from delegator.delegate.settings import Delegate, Settings
from delegator.doors.listening import STATUS, Files, Life
from delegator.errors import DelegatorError, Kind
from delegator.model.places import authority
from delegator.net import descriptors, systemd
from delegator.net.aside import aside
from delegator.net.crowds import Caps
from delegator.net.listening import Place, opened
from delegator.net.serve import Deadlines, Listener
from delegator.net.stamps import Stamp, stamp_of
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.wire.certificate import host_of
from delegator.wire.presented import presented
from delegator.wire.tls import TlsContext, serving
from pki import PkiError
from pki.pair import Pair
from pki.trust import TrustStore

T = TypeVar("T")
_YOURS = ("name your certificate and key in delegate.toml, [delegate] certificate and key, or by --certificate and "
          "--key; docs/customers.md tells how to make them")
_MAKERS = "name the factory's ca.crt that the maker gave you: ca in [delegate] of delegate.toml, or --ca"
log = logging.getLogger(__name__)
HOUSEKEEPING = 15.0
"""Seconds between rounds: passwords that nobody may use any more are forgotten, changed certificates are read."""
BRIEFLY = 10.0
"""Seconds for each file of a reload: revocation lists wait for anchors that lie on a disk that does not answer."""
LEDGER = 1
"""Connections to the database, as far as open files are concerned."""
DEADLINES = Deadlines(writing=60.0)
"""Provisioning data may have megabytes and a device a slow link."""
CLOCK = Clock()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a delegate shows of itself, and whom it believes."""

    trust: TrustStore
    shown: Pair

    @property
    def context(self) -> TlsContext:
        """Asks every peer for a certificate and takes none as well: devices show a credential instead."""
        return serving(self.shown, self.trust, CLOCK.now, require_certificate=False)


def _trust(settings: Delegate) -> TrustStore:
    try:
        return TrustStore.load(settings.ca, settings.crl or None)
    except PkiError as error:
        hint = error.hint if Path(settings.ca).exists() else _MAKERS
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=hint) from None


def _shown(settings: Delegate) -> Pair:
    return presented(Path(settings.certificate), Path(settings.key), _YOURS)


def _load(settings: Delegate) -> Loaded:
    return Loaded(_trust(settings), _shown(settings))


async def _reloaded(before: Loaded, settings: Delegate,
                    late: Callable[[], None]) -> tuple[Loaded, tuple[DelegatorError, ...]]:
    """Each of the two as far as it is in order, else as it was, and what is not; revocations count all the same. `late`
    is called where a file that did not answer in time does so after all."""
    wrong: list[DelegatorError] = []

    async def read(load: Callable[[], T], what: str, otherwise: T) -> T:
        try:
            return await aside(load, what, BRIEFLY, late)
        except DelegatorError as error:
            wrong.append(error)
            return otherwise
    trust, shown = await asyncio.gather(read(partial(_trust, settings), "reading whom to trust", before.trust),
                                        read(partial(_shown, settings), "reading certificate and key", before.shown))
    if trust is before.trust and settings.crl:
        trust = await read(partial(before.trust.tightened, settings.crl), "reading revocation lists", before.trust)
    return Loaded(trust, shown), tuple(wrong)


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
    if settings.data == Delegate().data and not Path(settings.data).exists():
        log.warning("there is no folder %s: each device is told its tag alone; put default.xml into it", settings.data)
    else:
        provisioning.check(Path(settings.data))


async def serve(settings: Settings, ready: Callable[[tuple[Place, ...]], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads certificates, anchors and lists anew. `ready` is told the addresses.
    Raises DelegatorError (CONFIGURATION)."""
    mine = settings.delegate
    manager = systemd.manager()
    given = systemd.sockets((systemd.DELEGATE,))[systemd.DELEGATE]
    stamp = await stamp_of(_watched(mine))
    await aside(partial(_check, mine), "looking at the provisioning data")
    loaded = await aside(partial(_load, mine), "reading certificate, key and anchors")
    key = await aside(partial(_sealing_key, mine), "reading the sealing key")
    name = host_of(loaded.shown.leaf) or socket.gethostname()
    ledger = await open_ledger(Path(mine.database), key, timedelta(minutes=mine.grace))
    try:
        server = Server(ledger, frozenset(mine.delegators), Path(mine.data), CLOCK.now,
                        lifetime=timedelta(hours=mine.lifetime), url=mine.public_url,
                        here=lambda: authority(name, listener.places[0][1]))
        caps = descriptors.fitted(Caps(), descriptors.limit(), LEDGER)
        listener = Listener(loaded.context, server.answer, deadlines=DEADLINES, on_refused=server.refused, caps=caps)
        listener.unreadable = server.unreadable
        keeper = Keeper(listener, mine, loaded, stamp, manager)
        life, wiping = keeper.life, Rota((Chore("wiping", HOUSEKEEPING, partial(_wipe, ledger)),))
        async with life.upkeep({"reload": keeper.rota.run, "wiping": wiping.run}):
            try:
                life.heed()
                for one in given or opened(mine.host, mine.port):
                    listener.serve(one)
                ready(listener.places)
                manager.ready(STATUS)
                await life.ended(lambda: mine.drain)
            finally:
                await listener.close(mine.drain)
    finally:
        await ledger.close()


class Keeper:
    """Reads certificates, anchors and lists anew when one of them changed, or when told to; each counts that is in
    order, without anybody sending a signal."""

    def __init__(self, listener: Listener, settings: Delegate, loaded: Loaded, stamp: Stamp,
                 manager: systemd.Manager) -> None:
        """`stamp` is how the files looked before they were loaded."""
        self._listener, self._settings, self._loaded = listener, settings, loaded
        self._told = asyncio.Event()
        self.life = Life(manager, self.wake)
        self.files = Files(lambda: _watched(settings))
        self.files.stamp = stamp
        self.rota = Rota((Chore("reload", HOUSEKEEPING, lambda: self.files.look(self._reload)),), woken=self._told)

    def wake(self) -> None:
        """Read all of them, whether they have changed or not."""
        self.files.anew()
        self._told.set()

    async def _reload(self) -> None:
        await self.life.exchanged(self._exchange, self._read_again)

    async def _read_again(self) -> None:
        """Reading broke off by a fault of ours: the next look begins anew."""
        self.files.anew()

    async def _exchange(self) -> None:
        self._loaded, wrong = await _reloaded(self._loaded, self._settings, self.wake)
        self._listener.context = self._loaded.context
        for error in wrong:
            log.error("reload: %s; what was loaded before stays; next: %s", error.detail, error.hint)
        if not wrong:
            log.info("reload: certificates, anchors and revocation lists are fresh")


def _watched(settings: Delegate) -> tuple[str, ...]:
    return settings.certificate, settings.key, settings.ca, settings.crl


async def _wipe(ledger: Ledger) -> None:
    """A password that was wiped does not come back: not by one look at the clock."""
    if CLOCK.settled:
        await ledger.wipe(CLOCK.now())
