"""One worker as its parent sees it: a process, a channel to it, what it said last.

The invariant: whatever becomes of the process, `gone` returns once it has ended, and nothing of it is left.
Must not live here: how many there are, when one is started anew (workers).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from delegator.config import Settings
from delegator.net.channel import Channel, joined
from delegator.watching.merging import Family, as_families
from delegator.watching.served import Answer, as_answers

START = 60.0
"""Seconds from a worker's start until it serves: a second in practice; reading 100,000 revoked serials is in it."""
ANSWERS = 10.0
"""Seconds for an answer. Readiness gives up on the store after two."""
LAST = 5.0
"""Seconds past the drain time until a worker that does not end is killed."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a worker is: its metrics, what keeps it from serving, what is to be renewed before long; what
    devices were told, and what stood behind that."""

    families: list[Family]
    wrong: dict[str, str]
    soon: dict[str, str]
    answers: Mapping[int, Answer] = field(default_factory=dict)
    why: Mapping[int, str] = field(default_factory=dict)


NOTHING = Said([], {}, {})


class Hand:
    """A worker under way. Make it with `hired`."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number, self.process, self._channel = number, process, channel
        self.last = NOTHING
        self.stopping = False
        self._hearing = asyncio.get_running_loop().create_task(channel.run())

    async def start(self, settings: Settings, sockets: Sequence[int], page: int) -> None:
        """Tell it what it serves, and where it finds the others' numbers. Raises what it raises: DelegatorError
        (CONFIGURATION, UNAVAILABLE)."""
        await self._channel.call("start", {"settings": msgspec.to_builtins(settings), "number": self.number,
                                           "sockets": list(sockets), "page": page}, within=START)

    async def look(self, full: bool, within: float = ANSWERS) -> Said:
        """How it is now; what is wrong is asked only with `full`, and stays as it was told else. Raises DelegatorError
        (UNAVAILABLE) after so many seconds."""
        said = await self._channel.call("look", full, within=within)
        wrong = said["wrong"] if full else self.last.wrong
        self.last = Said(as_families(said["families"]), wrong, said["soon"], as_answers(said["answers"]),
                         {int(told): why for told, why in said["why"].items()})
        return self.last

    async def reload(self, settings: Settings) -> str:
        """Have it serve with other settings; why it did not, "" when it does. Raises DelegatorError (UNAVAILABLE)."""
        why: str = await self._channel.call("reload", msgspec.to_builtins(settings), within=START)
        return why

    def tell(self, verb: str) -> None:
        """One of keep, wake, refused."""
        self._channel.tell(verb)

    async def stop(self, drain: float) -> None:
        """Let it answer what it has in hand, and end."""
        self.stopping = True
        self._channel.tell("stop")
        try:
            await asyncio.wait_for(self.process.wait(), drain + LAST)
        except TimeoutError:
            self.kill()
        await self.gone()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def gone(self) -> int:
        """Wait for its end; its exit code."""
        code = await self.process.wait()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        return code


def _command() -> list[str]:
    """Found where we were found, and not in whatever folder we happen to stand."""
    alone = [] if sys.path and sys.path[0] == str(Path.cwd()) else ["-P"]
    return [sys.executable, *alone, "-m", "delegator.serving.worker"]


async def hired(number: int, given: Sequence[int], heard: Callable[[str], None]) -> Hand:
    """A process that waits to be told what to do, and has the descriptors that are `given` it. Its terminal is not
    ours, so Ctrl-C is heard by the parent alone."""
    ours, theirs = socket.socketpair()

    async def answer(verb: str, argument: Any) -> None:
        heard(verb)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *_command(), str(theirs.fileno()), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *given), start_new_session=True)
    return Hand(number, process, await joined(ours, answer))
