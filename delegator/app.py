"""The composition root: settings become a running delegator. Start, reload, drain, end. Block 204.

The invariants: nothing listens before everything it needs was checked; a reload that fails changes nothing; at the
end no request that was accepted is left without its answer, as far as the drain time allows.
Must not live here: decisions, formats, anything a second composition would want to share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from delegator import observe, ops
from delegator.callbacks import Callbacks, Caller
from delegator.callbacks.breaker import State
from delegator.callbacks.guard import Guard, Limits
from delegator.callbacks.local import Allowance, LocalCaller, user_named
from delegator.callbacks.soap import SoapCaller
from delegator.callbacks.ssh import SshCaller
from delegator.config import Settings
from delegator.errors import DelegatorError, Kind
from delegator.handshake import Handshake
from delegator.metrics import Metrics
from delegator.model import CallbackKind
from delegator.net.reverse import load_domains
from delegator.net.serve import Deadlines, Listener
from delegator.notify import Notifier
from delegator.notify.carriers import carriers, delegator_name
from delegator.outbound import Outbound, networks
from delegator.sealing import SealingKey, read_key_file
from delegator.server import Server
from delegator.store import Store, open_store
from delegator.trail import Trail
from delegator.wire.tls import TlsContext, server_context
from pki import PkiError
from pki.trust import TrustStore

log = logging.getLogger(__name__)
HOUSEKEEPING = 5.0
"""Seconds between rounds: delegates are told of confirmations, lapsed claims end, changed certificates are read."""


def now() -> datetime:
    return datetime.now(UTC)


def load_trust(settings: Settings) -> TrustStore:
    """The factory's anchors and revocation lists. Raises DelegatorError (CONFIGURATION)."""
    try:
        return TrustStore.load(settings.server.ca, settings.server.crl or None)
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=error.hint) from None


def load_key(settings: Settings) -> SealingKey:
    """The sealing keys. Raises DelegatorError (CONFIGURATION)."""
    files = (settings.sealing.key_file, *settings.sealing.older_key_files)
    return SealingKey(*(read_key_file(Path(file)) for file in files))


def load_outbound(settings: Settings) -> Outbound:
    """Where delegates may be. Raises DelegatorError (CONFIGURATION)."""
    try:
        return Outbound(networks(settings.outbound.allow), frozenset({settings.server.port}))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"$.outbound.allow: {error}") from None


async def open_settings_store(settings: Settings) -> Store:
    """The store that settings name, for the server and for every command."""
    return await open_store(Path(settings.store.path), load_key(settings))


class App:
    """One running delegator. `start` returns the address it listens on; `run` lasts until a signal or `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._notes: set[asyncio.Task[None]] = set()
        self._ops: asyncio.Server | None = None
        self._ends: dict[str, datetime] = {}
        self.metrics = Metrics()
        self.ops_port: int | None = None
        self._stamp = self._files_stamp()

    def _context(self) -> tuple[TrustStore, TlsContext]:
        server = self._settings.server
        trust = load_trust(self._settings)
        return trust, server_context(Path(server.certificate), Path(server.key), trust, now)

    async def start(self) -> tuple[str, int]:
        """Check everything, open the store, listen. Raises DelegatorError (CONFIGURATION)."""
        settings, limits = self._settings, self._settings.limits
        trust, context = self._context()
        self._domains = load_domains(settings.domains)
        self._store = await open_settings_store(settings)
        try:
            await self._store.pause_all()
            self._callbacks = self._make_callbacks(trust)
            self._notifier = Notifier(self._store, carriers(settings, load_outbound(settings), now), now)
            self._handshake = Handshake(self._store, self._callbacks, now, busy_for=settings.callbacks.budget + 1,
                                        factory_anchor=_pem(trust), confirmed=self._wake.set,
                                        alternates=settings.server.alternates, domains=self._domains,
                                        name=delegator_name(settings), issued=self._notifier.wake)
            server = Server(self._handshake, self._record, settings.server.url)
            deadlines = Deadlines(silent=limits.handshake, handshake=limits.handshake, request=limits.request,
                                  idle=limits.idle, writing=limits.writing)
            self._listener = Listener(context, server.answer, deadlines=deadlines, on_refused=server.refused,
                                      max_connections=limits.connections,
                                      requests_per_connection=limits.requests_per_connection)
            await self._open_ops(trust)
            return self._listener.listen(settings.server.host, settings.server.port)
        except BaseException:
            await self._store.close()
            raise

    def _make_callbacks(self, trust: TrustStore) -> Callbacks:
        settings = self._settings.callbacks
        outbound = load_outbound(self._settings)
        soap = SoapCaller(Path(settings.certificate), Path(settings.key), trust, now, settings.budget, outbound)
        local = LocalCaller(Allowance(settings.budget, settings.local_cpu, settings.local_memory,
                                      user_named(settings.local_user)))
        limits = Limits(settings.running, settings.waiting, settings.budget)
        callers: dict[CallbackKind, Caller] = {CallbackKind.SOAP: soap, CallbackKind.SSH: SshCaller(outbound),
                                               CallbackKind.LOCAL: local}
        return Callbacks(callers, Guard(limits, self._breaker_changed))

    def _record(self, trail: Trail, level: int) -> None:
        observe.record(trail, level)
        self.metrics.handshake(trail)

    def _breaker_changed(self, delegate: str, state: State, why: str) -> None:
        """Seen in metrics at once, and by `delegator delegates show` from any process."""
        log.warning("delegate %s: circuit breaker %s %s", delegate, state.value, why)
        self.metrics.breaker_changed(delegate, state.value)
        note = self._store.note_health(delegate, state.value, why, now())
        self._notes.add(task := asyncio.get_running_loop().create_task(_guarded(lambda: note)))
        task.add_done_callback(self._notes.discard)

    async def _open_ops(self, trust: TrustStore) -> None:
        self._watch_ends(trust)
        settings = self._settings.ops
        if settings.enabled:
            self._ops, self.ops_port = await ops.listen(ops.Ops(self.metrics, self._unready), settings.host,
                                                        settings.port)

    def _watch_ends(self, trust: TrustStore) -> None:
        """When what we serve with ends, for metrics and readiness."""
        server = x509.load_pem_x509_certificates(Path(self._settings.server.certificate).read_bytes())[0]
        self._ends = {"server": server.not_valid_after_utc}
        if trust.revocation is not None:
            self._ends["revocation list"] = trust.revocation.next_update
        for file, moment in self._ends.items():
            self.metrics.ends(file, moment)

    async def _unready(self) -> dict[str, str]:
        """What keeps this delegator from serving devices, by part."""
        wrong = {part: f"ended at {moment.isoformat()}" for part, moment in self._ends.items() if moment <= now()}
        try:
            await self._store.check()
        except DelegatorError as error:
            wrong["store"] = error.detail
        return wrong

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; SIGHUP reloads. Then drain and close everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        upkeep = [loop.create_task(work) for work in (self._housekeeping(), self._notifier.run())]
        await self._stopping.wait()
        for task in upkeep:
            task.cancel()
        await asyncio.gather(*upkeep, return_exceptions=True)
        await self._listener.close(self._settings.limits.drain)
        if self._ops is not None:
            self._ops.close()
        await asyncio.gather(*self._notes)
        self._callbacks.close()
        if self._domains is not None:
            self._domains.close()
        await self._store.close()

    def stop(self) -> None:
        self._stopping.set()

    def reload(self) -> None:
        """Read certificates, anchors and revocation lists again; connections that stand keep what they have."""
        try:
            trust, self._listener.context = self._context()
            self._watch_ends(trust)
        except DelegatorError as error:
            log.error("reload refused, serving on with what was loaded: %s", error.detail)
        else:
            log.info("certificates and revocation lists were reloaded")

    def _files_stamp(self) -> tuple[float, ...]:
        server = self._settings.server
        paths = [Path(name) for name in (server.certificate, server.key, server.ca, server.crl) if name]
        return tuple(path.stat().st_mtime for path in paths if path.exists())

    def _reload_if_changed(self) -> None:
        """A revocation takes effect without anybody sending a signal."""
        stamp = self._files_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self.reload()

    async def _housekeeping(self) -> None:
        while True:
            await _guarded(self._handshake.notify_delegates)
            await _guarded(lambda: self._store.expire_lapsed(now()))
            self._reload_if_changed()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), HOUSEKEEPING)


async def _guarded(work: Callable[[], Awaitable[object]]) -> None:
    """A round that fails is logged, and the next one comes all the same."""
    try:
        await work()
    except DelegatorError as error:
        log.error("housekeeping: %s", error.detail)
    except Exception:
        log.exception("housekeeping: a fault of ours")


def _pem(trust: TrustStore) -> str:
    return "".join(anchor.public_bytes(Encoding.PEM).decode() for anchor in trust.anchors)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running delegator listens; `ops` is None where that port is off."""

    host: str
    port: int
    ops: int | None


async def serve(settings: Settings, ready: Callable[[Listening], None]) -> None:
    """Run a delegator; `ready` is told the addresses once it listens."""
    app = App(settings)
    host, port = await app.start()
    ready(Listening(host, port, app.ops_port))
    await app.run()
