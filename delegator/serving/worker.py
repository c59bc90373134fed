"""One of several workers: `python -m delegator.serving.worker FD`, started by the parent, which it hears at that
descriptor.

It is told its settings and which sockets it serves. From then on it is a delegator like any other, but for two things:
it has no operators' port, as the parent has one for all, and it keeps house only when it is appointed.
The invariant: a worker whose parent is gone drains and ends.
Must not live here: what several workers make together (workers).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from pki import streams

if TYPE_CHECKING:
    from delegator.config import Settings
    from delegator.net.channel import Channel
    from delegator.serving.app import App

log = logging.getLogger(__name__)
FAILED = 3


class Worker:
    """The process's life: told to start, asked how it is, told to end."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._running: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self.channel: Channel | None = None

    async def answer(self, verb: str, argument: Any) -> object:
        """Do what the parent says."""
        said: object = await getattr(self, f"_{verb}")(argument)
        return said

    async def _start(self, said: dict[str, Any]) -> None:
        from delegator.clockwork import loop
        from delegator.net import systemd
        from delegator.net.company import Company
        from delegator.serving.app import App
        from delegator.serving.duties import Duties
        from delegator.watching import logs

        settings = _settings(said["settings"])
        logs.configure(settings.log.level, settings.log.json)
        loop.tell()
        assert self.channel is not None
        channel = self.channel
        company = Company(said["page"], said["number"])
        os.close(said["page"])
        self._app = App(settings, duties=Duties(said["number"], lambda: channel.tell("wake")), company=company)
        await self._app.start({systemd.DEVICES: [_own(number) for number in said["sockets"]]})
        self._running = asyncio.get_running_loop().create_task(self._app.run())
        self._running.add_done_callback(lambda _: self._ended.set())

    async def _look(self, full: bool) -> dict[str, object]:
        """How we are; `full` brings up to date what costs a durable write."""
        from delegator.watching.merging import families

        assert self._app is not None
        watching = self._app.watching
        wrong = await watching.read() if full else {}
        return {"families": families(self._app.metrics.registry), "wrong": wrong, "soon": watching.soon(),
                "answers": watching.answers.as_list(time.monotonic()), "why": watching.answers.why()}

    async def _reload(self, said: Any) -> str:
        """Why the settings do not do; "" when they are in effect."""
        assert self._app is not None
        return await self._app.exchange(lambda: _settings(said))

    async def _refused(self, _: Any) -> None:
        """The parent refused a reload before anybody heard of it."""
        assert self._app is not None
        self._app.metrics.reload_refused()

    async def _keep(self, _: Any) -> None:
        assert self._app is not None
        self._app.keep_house()

    async def _wake(self, _: Any) -> None:
        assert self._app is not None
        self._app.wake()

    async def _stop(self, _: Any) -> None:
        if self._app is None or self._running is None:  # nothing runs yet: what is being started ends with the process
            self._ended.set()
        else:
            self._app.stop()

    async def life(self, descriptor: int) -> int:
        """From the first word to the end; the exit code."""
        from delegator.net.channel import joined

        self.channel = await joined(_own(descriptor), self.answer)
        hearing = asyncio.get_running_loop().create_task(self.channel.run())
        hearing.add_done_callback(lambda _: asyncio.get_running_loop().create_task(self._stop(None)))
        await self._ended.wait()
        if self._running is not None:
            await self._running
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        return 0 if self._running is not None else FAILED


def _own(descriptor: int) -> socket.socket:
    """A socket that we were given. No program that we start inherits it."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _settings(said: Any) -> Settings:
    import msgspec

    from delegator.config import Settings

    return msgspec.convert(said, Settings)


def main() -> int:
    """Be a worker; `sys.argv` names the descriptor."""
    from delegator import engine
    from delegator.clockwork import loop

    engine.load()
    return loop.run(Worker().life(int(sys.argv[1])))


if __name__ == "__main__":
    streams.program(main)
