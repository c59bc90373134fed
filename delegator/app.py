"""The composition root: settings become a running delegator. Start, reload, drain, end. Block 204.

The invariants: nothing listens before everything it needs was checked; a reload that fails changes nothing; at the
end no request that was accepted is left without its answer, as far as the drain time allows.
Must not live here: decisions, formats, what settings turn into (parts), anything a second composition would share.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from delegator import observe, systemd
from delegator.alarm import Alarm
from delegator.auditor import Auditor
from delegator.callbacks import Callbacks
from delegator.callbacks.breaker import State
from delegator.callbacks.guard import Guard
from delegator.clocks import Clock
from delegator.config import Settings
from delegator.duties import Duties
from delegator.enrolment import Enroller
from delegator.errors import DelegatorError
from delegator.exchanging import salvaged
from delegator.finished import Finished
from delegator.handshake import Handshake
from delegator.metrics import Metrics
from delegator.model.places import authority
from delegator.net.aside import aside
from delegator.net.company import Company
from delegator.net.listening import Place
from delegator.net.serve import Listener
from delegator.net.stamps import Stamp, require_answers, stamp_of
from delegator.notify import Notifier
from delegator.notify.carriers import delegator_name
from delegator.parts import Parts, Retired, open_store_to_serve, prepare, watched, withdrawing
from delegator.reloading import changed, in_effect, lets_in, told
from delegator.rounds import Round, guarded, kept
from delegator.server import Server
from delegator.telling import Teller
from delegator.watching import Watching

log = logging.getLogger(__name__)
HOUSEKEEPING = 5.0
"""Seconds between rounds: lapsed claims end, what was left behind is tidied, changed certificates are read."""
READING = "reading the settings' files"
Reread = Callable[[], Settings]
Sockets = dict[str, list[socket.socket]]


class App:
    """One running delegator. `start` returns the address it listens on; `run` lasts until a signal or `stop`.
    `reread` reads the settings again for a reload; `manager` is told how we are; `duties` are for one of several
    workers."""

    def __init__(self, settings: Settings, reread: Reread | None = None,
                 manager: systemd.Manager | None = None, duties: Duties | None = None,
                 company: Company | None = None) -> None:
        self._settings = settings
        self._reread = reread or (lambda: self._parts.settings)
        self._manager = manager or systemd.Manager()
        self._duties, self._company = duties or Duties(), company
        self._clock = Clock()
        self._now = self._clock.now
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._exchanging = asyncio.Lock()
        self._notes: set[asyncio.Task[None]] = set()
        self._reloads: set[asyncio.Task[None]] = set()
        self._retired = Retired()
        self._waiting: tuple[str, ...] = ()
        self._withdrawn: frozenset[int] = frozenset()
        self.metrics = Metrics()

    async def start(self, sockets: Sockets | None = None) -> Place:
        """Check everything, open the store, listen; `sockets` are those that listen already. Raises DelegatorError
        (CONFIGURATION)."""
        given = sockets or {}
        self._stamp: Stamp | None = await stamp_of(watched(self._settings))
        parts = await aside(partial(prepare, self._settings, self._now), READING)
        self._store = await open_store_to_serve(self._settings)
        try:
            self._store.listen(self._changed_elsewhere)
            # Else what a crash left behind is free again when its time is over.
            if self._duties.alone and not self._store.shared:
                await self._store.pause_all()
            self._withdrawn = await self._store.enrolments.revoked(self._clock.over())
            parts = self._without_withdrawn(parts)
            self._callbacks = Callbacks(parts.callers, Guard(parts.limits, self._breaker_changed))
            self._teller = Teller(self._store, self._callbacks)
            self._notifier = Notifier(self._store, parts.carriers, self._now, settled=lambda: self._clock.settled)
            self._alarm = Alarm(self._store, self.metrics, self._to_tell, delegator_name(self._settings),
                                lambda: self._clock.settled)
            self._auditor = Auditor(self._store, self._now, self._duties.named, lambda: self._clock.settled)
            self._listener = Listener(parts.context, company=self._company)
            self.watching = Watching(self.metrics, self._store, self._listener, self._notifier, self._now,
                                     self._clock.doubt)
            self._finished = Finished(self._auditor.record, {"the metrics": self.metrics.handshake,
                                                             "readiness": self.watching.answers.note})
            self.metrics.first = self._finished.tell
            self._serve_with(parts)
            await self.watching.port.open(self._settings.ops, given.get(systemd.OPS, []))
            self.metrics.reloaded(self._now())
            self._heed_signals()
            address = self._listen(given.get(systemd.DEVICES, []))
            await self._auditor.started(self._settings)
            return address
        except BaseException:
            await self._store.close()
            raise

    def _heed_signals(self) -> None:
        """Before anybody is told that we listen: a signal that nobody heeds ends the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    @property
    def ops_port(self) -> int | None:
        """Where operators look, None where that port is off."""
        return self.watching.port.number

    @property
    def places(self) -> tuple[Place, ...]:
        """Where devices call."""
        return self._listener.places

    def _here(self) -> str:
        """The address to call us at, for a caller that did not say which one it used."""
        return authority(self._parts.name, self.places[0][1] if self.places else self._settings.server.port)

    def _listen(self, sockets: list[socket.socket]) -> Place:
        """On the sockets that we were given, else on our own."""
        if not sockets:
            return self._listener.listen(self._settings.server.host, self._settings.server.port)
        addresses = [self._listener.serve(one) for one in sockets]
        return addresses[0]

    def _serve_with(self, parts: Parts) -> None:
        """From here on new connections, requests and calls meet these parts."""
        settings, limits = parts.settings, parts.settings.limits
        self._parts = parts
        self._store.use(parts.key)
        self._callbacks.use(parts.callers, parts.limits)
        self._notifier.use(parts.carriers)
        self._teller.use(parts.domains)
        self._alarm.name = delegator_name(settings)
        self._handshake = Handshake(self._store, self._callbacks, self._now, busy_for=settings.callbacks.budget + 1,
                                    factory_anchor=parts.factory_anchor, confirmed=self._to_tell, domains=parts.domains,
                                    alternates=parts.alternates, name=delegator_name(settings), issued=self._to_tell,
                                    enroller=self._enroller(parts), contested=self._alarm.contested,
                                    since=self._clock.since)
        server = Server(self._handshake, self._finished.add, settings.server.url, self._here,
                        self.watching.answers.begun)
        self._listener.use(parts.context, server.answer, server.refused, parts.deadlines, parts.caps,
                           limits.requests_per_connection)
        if parts.shortage:
            log.warning("%s", parts.shortage)
        self._listener.balancers, self._listener.unreadable = parts.balancers, server.unreadable
        self.watching.ends(parts.ends)
        self.watching.signers(parts.trust)
        self.watching.remind()

    def _breaker_changed(self, delegate: str, state: State, why: str) -> None:
        """Seen in metrics at once, and by `delegator delegates show` from any process."""
        log.warning("delegate %s: circuit breaker %s %s", delegate, state.value, why)
        self.metrics.breaker_changed(delegate, state.value)
        self._in_background(lambda: self._store.note_health(delegate, state.value, why, self._now()), self._notes)

    def _in_background(self, work: Callable[[], Awaitable[object]], among: set[asyncio.Task[None]]) -> None:
        among.add(task := asyncio.get_running_loop().create_task(guarded(work)))
        task.add_done_callback(among.discard)

    # --- what is done once for all processes ---

    def _to_tell(self) -> None:
        self._duties.wake(self.wake)

    def wake(self) -> None:
        """There is something to tell a delegate or an administrator."""
        self._teller.wake()
        self._notifier.wake()

    def keep_house(self) -> None:
        """From now on this process does what is done once for all."""
        self._duties.ours.set()

    async def _once_for_all(self, work: Callable[[], Awaitable[object]]) -> None:
        await self._duties.ours.wait()
        await work()

    # --- life ---

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; SIGHUP reloads. Then drain and close everything."""
        loop = asyncio.get_running_loop()
        gc.freeze()  # what is there for good is not walked again and again: 2 % of a handshake's instructions
        upkeep = [loop.create_task(kept(work, what)) for work, what in (
            (partial(self._once_for_all, self._housekeeping), "housekeeping"),
            (partial(self._once_for_all, self._notifier.run), "notifications"),
            (partial(self._once_for_all, self._teller.run), "telling delegates"),
            (self._look_for_withdrawn, "looking for revocations"),
            (self._look_for_changes, "looking for changed files"),
            (partial(self.watching.run, self._duties.alone), "looking at what devices are told"),
            (self._watchdog, "telling the service manager that we live"))]
        await self._stopping.wait()
        drain = self._parts.settings.limits.drain
        self._manager.stopping(f"requests under way have {drain:g} s")
        self.watching.ready.draining = True
        ending = [*upkeep, *self._reloads]  # a reload may wait for a disk: nobody waits for that now
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._listener.close(drain)
        await self._close()

    async def _close(self) -> None:
        self._finished.end()
        self.watching.port.close()
        await asyncio.gather(*self._notes)
        self._retired.close()
        await self._alarm.close()
        self._callbacks.close()
        if self._parts.domains is not None:
            self._parts.domains.close()
        await guarded(self._auditor.stopped)
        await self._store.close()
        self._manager.close()

    def stop(self) -> None:
        self._stopping.set()

    async def _watchdog(self) -> None:
        """The service manager hears from the loop itself: one that hangs is started anew."""
        while self._manager.watchdog is not None:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog / 3)

    # --- reload ---

    def reload(self) -> None:
        """Read settings, certificates, anchors and revocation lists again; connections that stand go on."""
        if not self._stopping.is_set():
            self._in_background(lambda: self.exchange(self._reread, self.reload), self._reloads)

    async def exchange(self, reread: Reread, late: Callable[[], None] | None = None) -> str:
        """Make new parts beside the old ones, then exchange them; "" when all was in order. Else what is not in order
        is said, settings stay as they are, and of the files those count that are in order by themselves. `late` is
        called where the settings could not be read in time, and can be now."""
        async with self._exchanging:
            self._manager.reloading()
            try:
                await self._exchange_parts(await aside(reread, "reading the settings", late=late))
            except DelegatorError as error:
                self.metrics.reload_refused()
                log.error("reload refused, serving on with what was loaded: %s; next: %s", error.detail,
                          error.hint or "see: delegator config check")
                await self._salvage()
                return error.detail
            except Exception:
                self.metrics.reload_refused()
                log.exception("reload refused, serving on with what was loaded: a fault of ours")
                await self._salvage()
                return "a fault of ours, see the log"
            finally:
                if not self._stopping.is_set():
                    self._manager.ready("serving devices")
        return ""

    async def _exchange_parts(self, wanted: Settings) -> None:
        before = self._parts
        settings, waiting = in_effect(self._settings, wanted)
        if wanted is not self._settings:  # else only files are read again
            self._waiting = waiting
        stamp = await stamp_of(watched(settings))
        require_answers(stamp)
        parts = await aside(partial(prepare, settings, self._now, before, self._withdrawn), READING,
                            late=self._read_anew)
        opened = await aside(partial(lets_in, (before.settings, before.trust), (settings, parts.trust)), READING)
        await self.watching.port.move(settings.ops)
        if settings.log != before.settings.log:
            observe.configure(settings.log.level, settings.log.json)
        self._settings, self._stamp = settings, stamp
        self._serve_with(self._without_withdrawn(parts))  # more may have been withdrawn while files were read
        self._retired.add(before, parts)
        self.metrics.reloaded(self._now(), len(self._waiting))
        for level, words in told(changed(before.settings, settings), opened, waiting):
            log.log(level, "%s", words)
        # It is in effect, whatever becomes of its row: what cannot be written now is said in the log.
        await guarded(lambda: self._auditor.reloaded(settings, changed(before.settings, settings)))

    async def _salvage(self) -> None:
        """A revocation counts at once, also where another file of the same reload is not in order."""
        before = self._parts
        found = await salvaged(before, self._withdrawn, self._now, self._read_anew)
        if found is not None:
            self._serve_with(self._without_withdrawn(found.parts))
            self._retired.add(before, found.parts)
            log.warning("taken all the same, being in order by themselves: %s", ", ".join(found.taken))

    async def _reload_if_changed(self) -> None:
        """A revocation takes effect without anybody sending a signal."""
        stamp = await stamp_of(watched(self._settings))
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                await self.exchange(lambda: self._settings)
            except Exception:
                self._read_anew()
                raise

    def _read_anew(self) -> None:
        """A disk that did not answer in time does so now: whatever lies on it counts from the next round on."""
        self._stamp = None

    # --- enrolment ---

    def _enroller(self, parts: Parts) -> Enroller | None:
        days = parts.settings.enrolment.days
        return None if parts.enrolment is None else Enroller(self._store, parts.enrolment, days, self._now)

    def _without_withdrawn(self, parts: Parts) -> Parts:
        """Parts whose TLS refuses what was revoked in the store."""
        return parts if self._withdrawn <= parts.trust.withdrawn else withdrawing(parts, self._withdrawn, self._now)

    async def _withdraw(self) -> None:
        """An enrolment that was revoked is refused from the next round on, by whatever process it was revoked."""
        self._withdrawn = await self._store.enrolments.revoked(self._clock.over())
        parts = self._without_withdrawn(self._parts)
        if parts is not self._parts:
            self._serve_with(parts)
            log.info("%d certificates that were given online are withdrawn", len(self._withdrawn))

    async def _end_offers(self) -> None:
        if self._clock.settled:
            await self._store.ownership.lapse(self._now())

    async def _tidy_imports(self) -> None:
        """What an import that ended or died left behind goes in small commits, with room for devices in between."""
        more = True
        while more:
            more = await self._store.fleet.tidy(self._now())
            await asyncio.sleep(0.02 if more else 0)

    async def _housekeeping(self) -> None:
        """By the clock alone: none of it is more urgent because somebody asked or confirmed."""
        house = Round("housekeeping")
        while True:
            await house.of(lambda: self._store.expire_lapsed(self._now(), self._clock.since()),
                           self._end_offers, self._tidy_imports, self._auditor.upkeep)
            await asyncio.sleep(HOUSEKEEPING)

    async def _look_for_withdrawn(self) -> None:
        """Apart from the house, where an import that is tidied away holds up a round, and from files, where a disk
        may: a revocation waits for nobody."""
        looking = Round("looking for revocations")
        while True:
            self._changed.clear()
            await looking.of(self._withdraw)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING):  # wait_for may swallow a cancellation (gh-86296)
                    await self._changed.wait()

    async def _look_for_changes(self) -> None:
        while True:
            await guarded(self._reload_if_changed)
            self.watching.remind()
            await asyncio.sleep(HOUSEKEEPING)

    def _changed_elsewhere(self) -> None:
        """Another process changed something that we keep a copy of."""
        self._changed.set()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running delegator listens; `ops` is None where that port is off, `workers` its processes if several."""

    places: tuple[Place, ...]
    ops: int | None
    workers: tuple[int, ...] = ()


async def serve(settings: Settings, ready: Callable[[Listening], None], reread: Reread | None = None) -> None:
    """Run a delegator; `ready` is told the addresses once it listens, and so is the service manager."""
    manager = systemd.manager()
    app = App(settings, reread, manager)
    await app.start(systemd.sockets())
    ready(Listening(app.places, app.ops_port))
    manager.ready("serving devices")
    await app.run()
