"""How a process lives that listens: its signals, the service manager, its reloads, the files it serves with, its end.

Once for every composition: what serves devices alone, the parent of several workers, the customer's delegate.
The invariants: signals are heeded before anybody is told that we listen; one reload runs at a time, and one that is
refused changes nothing and is logged; once `upkeep` is left, no task that was begun here runs any more.
Must not live here: what is served (the doors), what a reload exchanges (the compositions), sockets (net).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping

from delegator.clockwork.rounds import Work, guarded, kept
from delegator.errors import DelegatorError
from delegator.net.stamps import Stamp, stamp_of
from delegator.net.systemd import Manager
from pki import signals

log = logging.getLogger(__name__)
STATUS = "serving devices"
"""What the service manager shows of us."""


class Life:
    """One process that listens. `reload` is called at SIGHUP; `manager` hears how we are."""

    def __init__(self, manager: Manager, reload: Callable[[], None]) -> None:
        self._manager, self._reload = manager, reload
        self._stop = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        self.exchanging = asyncio.Lock()
        """Held while settings are exchanged. Whatever must not meet half of the old and half of the new takes it."""

    # --- signals ---

    def heed(self) -> None:
        """Take our signals. This comes before anybody is told that we listen: a signal that nobody heeds kills us."""
        loop = asyncio.get_running_loop()
        for number in signals.ENDING:
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def stop(self) -> None:
        """Begin with the end."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    # --- reloads ---

    def begin(self, reload: Work) -> None:
        """Reload beside everything else, unless the end has come."""
        if not self.is_stopping:
            self._reloads.add(task := asyncio.get_running_loop().create_task(guarded(reload, "reload")))
            task.add_done_callback(self._reloads.discard)

    async def exchanged(self, exchange: Work, refused: Work) -> str:
        """Reload or keep: "" once everything is exchanged, otherwise why not, which is logged. Then we serve on with
        what was loaded, and `refused` is told."""
        async with self.exchanging:
            self._manager.reloading()
            try:
                await exchange()
            except Exception as error:
                why = _logged(error)
                await refused()
                return why
            finally:
                if not self.is_stopping:
                    self._manager.ready(STATUS)
        return ""

    # --- the end ---

    @contextlib.asynccontextmanager
    async def upkeep(self, works: Mapping[str, Work]) -> AsyncIterator[None]:
        """Keep these works going inside of this block, by the names that the log has for them, and the watchdog. At
        its end they are cancelled and so are reloads, as one may wait for a disk that does not answer."""
        loop = asyncio.get_running_loop()
        keeping = [loop.create_task(kept(work, what)) for what, work in works.items()]
        keeping.append(loop.create_task(kept(self._watchdog, "telling the service manager that we live")))
        try:
            yield
        finally:
            await self.cease(*keeping)

    async def cease(self, *keeping: asyncio.Task[None]) -> None:
        """Let go of what is kept, and of reloads."""
        ending = [*keeping, *self._reloads]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def ended(self, drain: Callable[[], float]) -> None:
        """Wait for a signal or for `stop`, and say so; `drain` tells the seconds that requests in hand have then."""
        await self._stop.wait()
        words = f"requests under way have {drain():g} s"
        log.info("stopping: %s", words)
        self._manager.stopping(words)

    async def pause(self, seconds: float) -> bool:
        """Wait so long, or until the end begins; whether it has begun."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation (gh-86296)
                await self._stop.wait()
        return self.is_stopping

    async def _watchdog(self) -> None:
        """The service manager hears from the event loop itself, so one that hangs is started anew."""
        while self._manager.watchdog is not None:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog / 3)


def _logged(error: Exception) -> str:
    """Why a reload was refused, after the log has it."""
    if not isinstance(error, DelegatorError):
        log.error("reload refused, serving on with what was loaded: a fault of ours", exc_info=error)
        return "a fault of ours, see the log"
    log.error("reload refused, serving on with what was loaded: %s; next: %s", error.detail,
              error.hint or "see: delegator config check")
    return error.detail


class Files:
    """The files that a process serves with: who changes one does not have to tell us. `names` says which they are now;
    `stamp` is how they looked when they were last read."""

    def __init__(self, names: Callable[[], tuple[str, ...]]) -> None:
        self._names = names
        self.stamp: Stamp | None = None

    async def seen(self) -> Stamp:
        """How they look now."""
        return await stamp_of(self._names())

    async def look(self, reread: Work) -> None:
        """Have them read again if one of them has changed. A reading that breaks off is begun anew at the next look;
        one that found something wrong is not, until a file changes again."""
        stamp = await self.seen()
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            await reread()
        except Exception:
            self.anew()
            raise

    def anew(self) -> None:
        """Have them read again at the next look, whether they have changed or not: for a disk that did not answer in
        time and does so now."""
        self.stamp = None
