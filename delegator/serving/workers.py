"""Several processes on one port: started, watched, reloaded one after the other, seen as one, ended together.

They share one listening socket, so a connection that waits there belongs to no worker until one accepts it: a worker
that dies loses none of them, and a busy one leaves them to the next. What must be exact across workers is the
store's business.
The invariants: a reload that is not in order changes nothing, and a reload keeps every worker accepting; one worker at
a time keeps house; after the end no worker is left.
Must not live here: how a worker serves (app), how one is spoken to (crew), adding up (watching.merging).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

from delegator.clockwork.rounds import Chore, Rota, Work, kept
from delegator.config import Settings
from delegator.doors.listening import STATUS, Life
from delegator.errors import DelegatorError, Kind, words_of
from delegator.net import company, systemd
from delegator.net.aside import aside
from delegator.net.listening import opened, place_of
from delegator.net.systemd import Sockets
from delegator.serving.app import READING, Listening, Reread
from delegator.serving.crew import Hand, hired
from delegator.serving.parts import open_store_to_serve, prepare
from delegator.serving.reloading import changed, in_effect
from delegator.watching import logs, ops
from delegator.watching.merging import Family, Whole, counted, merged
from delegator.watching.metrics import Metrics
from delegator.watching.readiness import SERVING
from delegator.watching.served import Teller, together
from delegator.watching.view import say

log = logging.getLogger(__name__)
LOOK = 2.0
"""Seconds between looks at a worker. When it dies, what it counted since the last look is lost; one that hangs is found
by a look that is not answered."""
HUNG = 30.0
"""Seconds without an answer until we take a worker for hung: a full disk may hold one up for a while."""
GLANCE = 3.0
"""Seconds for an answer to operators: readiness gives up on the store after two, and the port on itself after five."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a worker that died is started anew; doubled each time it dies young."""
YOUNG = 60.0


def now() -> datetime:
    return datetime.now(UTC)


def share(settings: Settings, many: int) -> Settings:
    """The settings for one of so many workers: its share of each limit, and no operators' port."""
    callbacks, limits = settings.callbacks, settings.limits
    return replace(
        settings, ops=replace(settings.ops, enabled=False),
        callbacks=replace(callbacks, running=-(-callbacks.running // many), waiting=-(-callbacks.waiting // many)),
        limits=replace(limits, connections=-(-limits.connections // many), half_open=-(-limits.half_open // many),
                       connections_per_source=-(-limits.connections_per_source // many)))


class Board:
    """All workers' metrics in one text."""

    content_type: ClassVar[str] = Metrics.content_type

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._whole = Whole()
        self._registry.register(self._whole)
        self.departed: list[Family] = []
        """What workers counted that are no more."""
        self.restarts = 0

    def show(self, all_of: list[list[Family]], teller: Teller) -> None:
        """What only the parent can judge, since it sees all answers, replaces what each worker says about it."""
        unready = int(bool(teller.wrong(time.monotonic())))
        self._whole.families = [
            *merged([*(_said_here(one, int(teller.verdict.serving), unready) for one in all_of), self.departed]),
            Family("delegator_workers", "Workers that run.", "gauge", [("delegator_workers", (), len(all_of))]),
            Family("delegator_worker_restarts", "Workers started anew because one ended.", "counter",
                   [("delegator_worker_restarts_total", (), self.restarts)])]

    def depart(self, families: list[Family]) -> None:
        self.departed = merged([self.departed, counted(families)])

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _said_here(said: list[Family], serving: int, unready: int) -> list[Family]:
    """One worker's metrics, with what the parent judges for all of them."""
    values = {"delegator_serving": serving, "delegator_unready": unready}
    return [one if one.name not in values else one._replace(samples=[
        (name, labels, values[one.name] if one.name == "delegator_serving" or ["part", SERVING] in labels else value)
        for name, labels, value in one.samples]) for one in said]


class Workers:
    """The parent. `start` returns where devices and operators call; `run` lasts until a signal."""

    def __init__(self, settings: Settings, reread: Reread, manager: systemd.Manager) -> None:
        self._settings, self._reread, self._manager = settings, reread, manager
        self._life = Life(manager, self.reload)
        self._many = settings.server.workers
        self._page = company.page(self._many)
        self._hands: dict[int, Hand] = {}
        self._keeper = 0
        self._sockets: list[socket.socket] = []
        self._board = Board()
        self._port = ops.Port(ops.Ops(self._board, self._wrong, self._soon, self._read, self._unserved))
        self._teller = Teller()
        self._refuser: Hand | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start ---

    async def start(self, sockets: Sockets) -> Listening:
        """Check everything, listen, start all workers. Raises DelegatorError (CONFIGURATION)."""
        await aside(partial(prepare, self._settings, now), READING)
        await self._free_claims()
        server = self._settings.server
        self._sockets = sockets.get(systemd.DEVICES) or opened(server.host, server.port)
        await self._port.open(self._settings.ops, sockets.get(systemd.OPS, []))
        self._life.heed()
        try:
            async with self._life.exchanging, asyncio.TaskGroup() as group:
                for number in range(1, self._many + 1):
                    group.create_task(self._hire(number))
        except* DelegatorError as errors:
            await self._end()
            raise _first(errors) from None
        for number in self._hands:
            self._in_background(partial(self._watch, number), f"watching over worker {number}")
        return Listening(tuple(map(place_of, self._sockets)), self._port.number,
                         tuple(self._hands[number].process.pid for number in sorted(self._hands)))

    async def _free_claims(self) -> None:
        """Bring the schema up to date once, and free what a crash left behind, while nobody is at work on it."""
        store = await open_store_to_serve(self._settings)
        try:
            if not store.shared:
                await store.pause_all()
        finally:
            await store.close()

    def reload(self) -> None:
        self._life.begin(self._reload)

    def _in_background(self, work: Work, what: str) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(kept(work, what)))
        task.add_done_callback(self._tasks.discard)

    async def _hire(self, number: int) -> None:
        """A worker that serves. Raises DelegatorError."""
        descriptors = [sock.fileno() for sock in self._sockets]
        hand = await hired(number, [*descriptors, self._page], self._heard)
        try:
            await hand.start(share(self._settings, self._many), descriptors, self._page)
        except BaseException:
            hand.kill()
            await hand.gone()
            raise
        self._hands[number] = hand
        self._appoint()

    def _appoint(self) -> None:
        """One worker keeps house: the one that did so already, or else the first that runs."""
        if self._hands and self._keeper not in self._hands:
            self._keeper = min(self._hands)
            self._hands[self._keeper].tell("keep")

    def _heard(self, verb: str) -> None:
        """A worker has something to do for the one that keeps house."""
        if verb == "wake" and self._keeper in self._hands:
            self._hands[self._keeper].tell("wake")

    # --- watch ---

    async def _watch(self, number: int) -> None:
        """Look after one place among the workers: when the process there dies, start another."""
        pause = FIRST_PAUSE
        while not self._life.is_stopping:
            if number not in self._hands:  # this watch failed while it started the next one, and was begun anew
                await self._follow(number, pause)
                continue
            began, hand = time.monotonic(), self._hands[number]
            looking = asyncio.get_running_loop().create_task(
                kept(partial(self._look_after, hand), f"looking after worker {number}"))
            code = await hand.gone()
            looking.cancel()
            del self._hands[number]
            if self._keeper == number:  # the next process with this number does not know that it keeps house
                self._keeper = 0
            self._board.depart(hand.last.families)
            if hand.stopping or self._life.is_stopping:
                return
            log.error("worker %d (process %d) ended with code %d", number, hand.process.pid, code)
            self._appoint()
            pause = FIRST_PAUSE if time.monotonic() - began > YOUNG else min(LONGEST_PAUSE, pause * 2)
            await self._follow(number, pause)

    async def _follow(self, number: int, pause: float) -> None:
        """Start another process in its place, and try again until one serves."""
        while not await self._life.pause(pause):
            try:
                async with self._life.exchanging:  # it must not start with settings that are being exchanged now
                    await self._hire(number)
                self._board.restarts += 1
                log.warning("worker %d was started anew as process %d", number, self._hands[number].process.pid)
                return
            except (DelegatorError, OSError) as error:
                log.error("worker %d could not be started: %s", number, words_of(error))
                pause = min(LONGEST_PAUSE, pause * 2)

    async def _look_after(self, hand: Hand) -> None:
        heard = time.monotonic()
        while True:
            try:
                await hand.look(False)
                heard = time.monotonic()
            except DelegatorError as error:
                if time.monotonic() - heard > HUNG:
                    log.error("worker %d (process %d) hangs: %s", hand.number, hand.process.pid, error.detail)
                    hand.kill()
            await asyncio.sleep(LOOK)

    # --- seen as one ---

    async def _read(self) -> None:
        """Ask all workers at once. One that does not answer is shown as it was when it last did."""
        hands = list(self._hands.values())
        await asyncio.gather(*(hand.look(True, GLANCE) for hand in hands), return_exceptions=True)
        self._board.show([hand.last.families for hand in hands], self._teller)

    async def _wrong(self) -> dict[str, str]:
        """What keeps any worker from serving, and which, unless it is all of them. Without a worker nobody serves."""
        await self._read()
        hands = list(self._hands.values())
        wrong: dict[str, str] = {} if hands else {"workers": "no worker runs; next: look into the log"}
        for part in dict.fromkeys(part for hand in hands for part in hand.last.wrong):
            whose = [hand for hand in hands if part in hand.last.wrong]
            which = "" if len(whose) == len(hands) else f"worker {', '.join(str(one.number) for one in whose)}: "
            wrong[part] = which + whose[0].last.wrong[part]
        wrong |= self._teller.wrong(time.monotonic())
        if self._life.is_stopping:
            wrong["draining"] = "stopping: requests under way are answered, new connections are not taken"
        return wrong

    def _unserved(self) -> dict[str, str]:
        return self._teller.unserved(time.monotonic())

    async def _look_on(self) -> None:
        """What devices were told by all of them, and what has changed in that."""
        hands, now = list(self._hands.values()), time.monotonic()
        why = {told: words for hand in hands for told, words in hand.last.why.items()}
        say(self._teller.look(together(hand.last.answers for hand in hands), now, why))

    def _soon(self) -> dict[str, str]:
        soon = {part: words for hand in self._hands.values() for part, words in hand.last.soon.items()}
        if 0 < len(self._hands) < self._many:
            soon["workers"] = f"{len(self._hands)} of {self._many} workers run; the others are being started anew"
        return soon

    # --- reload ---

    async def _reload(self) -> None:
        """The parent makes all parts first, so that settings which are not in order never reach a worker. Then the
        workers exchange theirs one after the other, and each goes on accepting connections meanwhile."""
        async def exchange() -> None:
            self._refuser = None
            await self._exchange(await aside(self._reread, "reading the settings", late=self.reload))
        await self._life.exchanged(exchange, self._tell_refused)

    async def _tell_refused(self) -> None:
        """Have every worker count it, except the one that refused: it has counted it already."""
        for hand in self._hands.values():
            if hand is not self._refuser:
                hand.tell("refused")

    async def _exchange(self, wanted: Settings) -> None:
        before = self._settings
        settings, _ = in_effect(before, wanted)  # each worker says which settings wait for a new start
        await aside(partial(prepare, settings, now), READING, late=self.reload)
        await self._port.move(settings.ops)
        done: list[Hand] = []
        for hand in [self._hands[number] for number in sorted(self._hands)]:
            try:
                why = await hand.reload(share(wanted, self._many))
            except DelegatorError as error:
                if hand.process.returncode is not None:
                    continue  # it died meanwhile; its replacement starts with the settings loaded by then
                why = error.detail
            if why:
                self._refuser = hand
                await self._go_back(done, before)
                raise DelegatorError(Kind.CONFIGURATION, f"worker {hand.number}: {why}")
            done.append(hand)
        self._settings = settings
        if settings.log != before.log:
            logs.configure(settings.log.level, settings.log.json)
        log.info("%d workers were reloaded, one after the other; settings changed: %s", len(done),
                 ", ".join(changed(before, settings)) or "none")

    async def _go_back(self, done: list[Hand], before: Settings) -> None:
        """Give the workers that have the new settings the old ones again: all serve with the same."""
        for hand in done:
            try:
                await hand.reload(share(before, self._many))
            except DelegatorError as error:  # go on: the others are to have the old settings all the same
                log.error("worker %d was not taken back: %s", hand.number, error.detail)
        await self._port.move(before.ops)

    # --- end ---

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reloads. Then let all workers drain, and end."""
        rota = Rota((Chore("answers", LOOK, self._look_on),))
        async with self._life.upkeep({"looking at what devices are told": rota.run}):
            await self._life.ended(lambda: self._settings.limits.drain)
        await self._end()

    async def _end(self) -> None:
        self._life.stop()
        await self._life.cease()
        for sock in self._sockets:  # the workers close it at once too, so no device waits in a line that nobody serves
            sock.close()
        async with self._life.exchanging:  # a worker that is being started is among the hands once this is ours
            await asyncio.gather(*(hand.stop(self._settings.limits.drain) for hand in list(self._hands.values())))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._port.close()
        os.close(self._page)
        self._manager.close()


def _first(errors: ExceptionGroup[DelegatorError]) -> DelegatorError:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found


async def serve(settings: Settings, ready: Callable[[Listening], None], reread: Reread) -> None:
    """Run a delegator of several workers; `ready` is told the addresses once all listen."""
    manager = systemd.manager()
    workers = Workers(settings, reread, manager)
    ready(await workers.start(systemd.sockets((systemd.DEVICES, systemd.OPS))))
    manager.ready(STATUS)
    await workers.run()
