"""The composition root: settings become a running delegator. Start, reload, drain, end. Block 204.

Two tables stand here that grow with what a delegator can do: `operations`, what devices may ask, and `App.rotas`, what
the clock drives.
The invariants: nothing listens before everything it needs was checked; a reload that fails changes nothing; at the
end no request that was accepted is left without its answer, as far as the drain time allows.
Must not live here: decisions, formats, what settings turn into (parts), anything that a second composition would share
(doors.listening).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from delegator.callbacks import Callbacks
from delegator.callbacks.breaker import State
from delegator.callbacks.guard import Guard
from delegator.clockwork.clocks import Clock
from delegator.clockwork.rounds import Chore, Rota, Work, guarded
from delegator.config import Settings
from delegator.doors.calls import Operations, operation
from delegator.doors.devices.soap import Server
from delegator.doors.listening import STATUS, Files, Life
from delegator.model import AddressChange, Confirmation, CredentialRequest
from delegator.model.places import authority
from delegator.net import systemd
from delegator.net.aside import aside
from delegator.net.company import Company
from delegator.net.listening import Place, opened
from delegator.net.serve import Listener
from delegator.net.stamps import require_answers, stamp_of
from delegator.net.systemd import Sockets
from delegator.notify import Notifier
from delegator.notify.carriers import delegator_name
from delegator.provisioning.alarm import Alarm
from delegator.provisioning.certifying import Enroller
from delegator.provisioning.handshake import Handshake, Heard, Own, Peer
from delegator.provisioning.telling import Teller
from delegator.serving.duties import Duties
from delegator.serving.exchanging import salvaged
from delegator.serving.parts import Parts, Retired, open_store_to_serve, prepare, watched, withdrawing
from delegator.serving.reloading import changed, in_effect, lets_in, told
from delegator.trail import Trail
from delegator.watching import logs
from delegator.watching.auditor import Auditor
from delegator.watching.finished import Finished
from delegator.watching.metrics import Metrics
from delegator.watching.view import LOOK, Watching

log = logging.getLogger(__name__)
HOUSEKEEPING = 5.0
"""Seconds between two times that a chore is done, unless its row in `App.rotas` says something else."""
READING = "reading the settings' files"
Reread = Callable[[], Settings]


def operations(handshake: Handshake) -> Operations[[Peer, Trail]]:
    """What devices may ask at their port, and which use case answers it."""
    return {**operation(CredentialRequest, handshake.provision), **operation(Confirmation, handshake.confirm),
            **operation(AddressChange, handshake.note_address)}


class App:
    """One running delegator. `start` returns the address it listens on; `run` lasts until a signal or `stop`.
    `reread` reads the settings again for a reload; the service `manager` is told how we are; `duties` say what one of
    several workers leaves to another."""

    def __init__(self, settings: Settings, reread: Reread | None = None,
                 manager: systemd.Manager | None = None, duties: Duties | None = None,
                 company: Company | None = None) -> None:
        self._settings = settings
        self._reread = reread or (lambda: self._parts.settings)
        self._manager = manager or systemd.Manager()
        self._duties, self._company = duties or Duties(), company
        self._clock = Clock()
        self._now = self._clock.now
        self._life = Life(self._manager, self.reload)
        self._files = Files(lambda: watched(self._settings))
        self._changed = asyncio.Event()
        """Another process changed something that we keep a copy of."""
        self._notes: set[asyncio.Task[None]] = set()
        self._retired = Retired()
        self._waiting: tuple[str, ...] = ()
        self._withdrawn: frozenset[int] = frozenset()
        self.metrics = Metrics()

    async def start(self, sockets: Sockets | None = None) -> Place:
        """Check everything, open the store, listen; `sockets` are those that listen already. Raises DelegatorError
        (CONFIGURATION)."""
        given = sockets or {}
        self._files.stamp = await self._files.seen()
        parts = await aside(partial(prepare, self._settings, self._now), READING)
        self._store = await open_store_to_serve(self._settings)
        try:
            self._store.listen(self._changed.set)
            # Where other servers may share the database their claims are left alone: a claim that a crash left asking
            # is free again at its busy_until.
            if self._duties.alone and not self._store.shared:
                await self._store.pause_all()
            self._withdrawn = await self._store.enrolments.revoked(self._clock.over())
            parts = self._without_withdrawn(parts)
            guard = Guard(parts.limits, self._breaker_changed)
            self._callbacks = Callbacks(parts.callers, guard)
            self._teller = Teller(self._store, self._callbacks)
            self._notifier = Notifier(self._store, parts.carriers, self._now, settled=lambda: self._clock.settled)
            self._alarm = Alarm(self._store, self.metrics, self._to_tell, delegator_name(self._settings),
                                lambda: self._clock.settled)
            self._auditor = Auditor(self._store, self._now, self._duties.named, lambda: self._clock.settled)
            self._listener = Listener(parts.context, company=self._company)
            guard.used = self._listener.used
            self.watching = Watching(self.metrics, self._store, self._listener, self._notifier, self._now,
                                     self._clock.doubt)
            self._finished = Finished(self._auditor.record, {"the metrics": self.metrics.handshake,
                                                             "readiness": self.watching.answers.note})
            self.metrics.first = self._finished.tell
            self._serve_with(parts)
            await self.watching.port.open(self._settings.ops, given.get(systemd.OPS, []))
            self.metrics.reloaded(self._now())
            self._life.heed()
            address = self._listen(given.get(systemd.DEVICES, []))
            await self._auditor.started(self._settings)
            return address
        except BaseException:
            await self._store.close()
            raise

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

    def _listen(self, given: list[socket.socket]) -> Place:
        """On the sockets that we were given, or else on our own."""
        server = self._settings.server
        first, *_ = [self._listener.serve(one) for one in given or opened(server.host, server.port)]
        return first

    def _serve_with(self, parts: Parts) -> None:
        """From here on new connections, requests and calls meet these parts."""
        settings, limits = parts.settings, parts.settings.limits
        self._parts = parts
        self._store.use(parts.key)
        self._callbacks.use(parts.callers, parts.limits)
        self._notifier.use(parts.carriers)
        self._teller.use(parts.domains)
        self._alarm.name = delegator_name(settings)
        own = Own(settings.callbacks.budget + 1, parts.factory_anchor, delegator_name(settings), parts.alternates,
                  self._clock.since)
        heard = Heard(confirmed=self._to_tell, issued=self._to_tell, contested=self._alarm.contested)
        self._handshake = Handshake(self._store, self._callbacks, self._now, own, heard, parts.domains,
                                    self._enroller(parts))
        server = Server(operations(self._handshake), self._finished.add, settings.server.url, self._here,
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
        self._notes.add(task := asyncio.get_running_loop().create_task(guarded(
            lambda: self._store.note_health(delegate, state.value, why, self._now()))))
        task.add_done_callback(self._notes.discard)

    # --- what is done once for all processes ---

    def _to_tell(self) -> None:
        self._duties.wake(self.wake)

    def wake(self) -> None:
        """There is something to tell a delegate or an administrator."""
        self._teller.wake()
        self._notifier.wake()

    def keep_house(self) -> None:
        """This process runs the work that only one of several may run, from now until it ends."""
        self._duties.ours.set()

    async def _once_for_all(self, work: Work) -> None:
        await self._duties.ours.wait()
        await work()

    # --- life ---

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; SIGHUP reloads. Then drain and close everything."""
        gc.freeze()  # what is there for good is not walked again and again: 2 % of a handshake's instructions
        async with self._life.upkeep(self._upkeep()):
            await self._life.ended(lambda: self._parts.settings.limits.drain)
            self.watching.ready.draining = True
        await self._listener.close(self._parts.settings.limits.drain)
        await self._close()

    def _upkeep(self) -> dict[str, Work]:
        """What goes on for as long as we serve, by its name in the log."""
        works: dict[str, Work] = {what: rota.run for what, rota in self.rotas().items()}
        once: dict[str, Work] = {"housekeeping": works["housekeeping"], "notifications": self._notifier.run,
                                 "telling delegates": self._teller.run}
        return works | {what: partial(self._once_for_all, work) for what, work in once.items()}

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
        self._life.stop()

    # --- reload ---

    def reload(self) -> None:
        """Read settings, certificates, anchors and revocation lists again; connections that stand go on."""
        self._life.begin(lambda: self.exchange(self._reread, self.reload))

    async def exchange(self, reread: Reread, late: Callable[[], None] | None = None) -> str:
        """Make new parts beside the old ones, then exchange them; "" when all was in order. Otherwise it returns what
        is not in order: the settings stay as they are, and each file that is in order by itself counts all the same.
        `late` is called if the settings could not be read in time, once they can be."""
        async def exchange() -> None:
            await self._exchange_parts(await aside(reread, "reading the settings", late=late))
        return await self._life.exchanged(exchange, self._salvage)

    async def _exchange_parts(self, wanted: Settings) -> None:
        before = self._parts
        settings, waiting = in_effect(self._settings, wanted)
        if wanted is not self._settings:  # else only files are read again
            self._waiting = waiting
        stamp = await stamp_of(watched(settings))
        require_answers(stamp)
        parts = await aside(partial(prepare, settings, self._now, before, self._withdrawn), READING,
                            late=self._files.anew)
        opened = await aside(partial(lets_in, (before.settings, before.trust), (settings, parts.trust)), READING)
        await self.watching.port.move(settings.ops)
        if settings.log != before.settings.log:
            logs.configure(settings.log.level, settings.log.json)
        self._settings, self._files.stamp = settings, stamp
        self._serve_with(self._without_withdrawn(parts))  # more may have been withdrawn while files were read
        self._retired.add(before, parts)
        self.metrics.reloaded(self._now(), len(self._waiting))
        for level, words in told(changed(before.settings, settings), opened, waiting):
            log.log(level, "%s", words)
        # The reload is in effect, whatever becomes of its row in the audit; if that cannot be written the log says so.
        await guarded(lambda: self._auditor.reloaded(settings, changed(before.settings, settings)))

    async def _salvage(self) -> None:
        """A reload was refused. A revocation counts at once all the same, although another file is not in order."""
        self.metrics.reload_refused()
        before = self._parts
        found = await salvaged(before, self._withdrawn, self._now, self._files.anew)
        if found is not None:
            self._serve_with(self._without_withdrawn(found.parts))
            self._retired.add(before, found.parts)
            log.warning("taken all the same, being in order by themselves: %s", ", ".join(found.taken))

    # --- enrolment ---

    def _enroller(self, parts: Parts) -> Enroller | None:
        days = parts.settings.enrolment.days
        return None if parts.enrolment is None else Enroller(self._store, parts.enrolment, days, self._now)

    def _without_withdrawn(self, parts: Parts) -> Parts:
        """These parts, with a TLS context that also refuses what was revoked in the store."""
        return parts if self._withdrawn <= parts.trust.withdrawn else withdrawing(parts, self._withdrawn, self._now)

    async def _withdraw(self) -> None:
        """Refuse the enrolments that were revoked, by whichever process that was done."""
        self._withdrawn = await self._store.enrolments.revoked(self._clock.over())
        parts = self._without_withdrawn(self._parts)
        if parts is not self._parts:
            self._serve_with(parts)
            log.info("%d certificates that were given online are withdrawn", len(self._withdrawn))

    async def _end_leases(self) -> None:
        await self._store.expire_lapsed(self._now(), self._clock.since())

    async def _end_offers(self) -> None:
        if self._clock.settled:
            await self._store.ownership.lapse(self._now())

    async def _tidy_imports(self) -> None:
        """Clear away what an import that ended or died left behind, in small commits that leave room for devices."""
        more = True
        while more:
            more = await self._store.fleet.tidy(self._now())
            await asyncio.sleep(0.02 if more else 0)

    def _look_at_files(self) -> Awaitable[None]:
        """A revocation takes effect without anybody sending a signal."""
        return self._files.look(lambda: self.exchange(lambda: self._settings))

    async def _remind(self) -> None:
        self.watching.remind()

    def rotas(self) -> dict[str, Rota]:
        """Everything that the clock drives. Only one of several workers keeps house; each does the rest for itself.

        Looking for revocations has a rota of its own, because an import that is tidied away may hold up housekeeping
        and a disk may hold up the files, and a revocation must wait for neither. A change that another process tells us
        of makes it due at once."""
        chores = {
            "housekeeping": (
                Chore("lapsed claims", HOUSEKEEPING, self._end_leases),
                Chore("offers", HOUSEKEEPING, self._end_offers),
                Chore("imports", HOUSEKEEPING, self._tidy_imports),
                Chore("audit", HOUSEKEEPING, self._auditor.upkeep)),
            "looking for revocations": (Chore("revocations", HOUSEKEEPING, self._withdraw),),
            "looking for changed files": (
                Chore("files", HOUSEKEEPING, self._look_at_files),
                Chore("reminders", HOUSEKEEPING, self._remind)),
            "looking at what devices are told": (
                Chore("answers", LOOK, lambda: self.watching.look_on(self._duties.alone)),)}
        woken = {"looking for revocations": self._changed}
        return {what: Rota(rows, self._chore_done, woken.get(what), self._chore_begun) for what, rows in chores.items()}

    def _chore_begun(self, name: str) -> None:
        self.metrics.chores.begun(name, self._now())

    def _chore_done(self, name: str, seconds: float, well: bool) -> None:
        self.metrics.chores.done(name, self._now(), seconds, well)


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
    await app.start(systemd.sockets((systemd.DEVICES, systemd.OPS)))
    ready(Listening(app.places, app.ops_port))
    manager.ready(STATUS)
    await app.run()
