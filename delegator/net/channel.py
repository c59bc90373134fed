"""Two processes of ours that talk over a pair of sockets: calls with answers, and words without, as lines of JSON.

Either end may call at any time; answers carry the number of their call, so a slow one holds up nobody.
The invariant: a call ends: with its answer, with the error the other end raised, or because the other end is gone.
Must not live here: what is said, processes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from delegator.errors import DelegatorError, Kind

log = logging.getLogger(__name__)
LONGEST = 64 * 1024 * 1024
"""Bytes of one line at most: metrics of a thousand delegates take 2 MB."""
Answer = Callable[[str, Any], Awaitable[object]]
"""What to do with a verb and its argument. A DelegatorError goes to the other end."""


class Channel:
    """One end. Make it with `joined`; `run` lasts until the other end is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = False

    def tell(self, verb: str, argument: object = None) -> None:
        """Say something that needs no answer; to an end that is gone it is nothing."""
        if not self._gone:
            self._write({"verb": verb, "argument": argument})

    async def call(self, verb: str, argument: object = None, *, within: float) -> Any:
        """The answer. Raises DelegatorError: what the other end raised, or UNAVAILABLE where it is gone or takes
        longer than `within` seconds."""
        if self._gone:
            raise _gone()
        number = next(self._numbers)
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        self._write({"call": number, "verb": verb, "argument": argument})
        try:
            return await asyncio.wait_for(future, within)
        except TimeoutError:
            raise DelegatorError(Kind.UNAVAILABLE, f"no answer to {verb} within {within:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def _write(self, said: dict[str, object]) -> None:
        self._writer.write(msgspec.json.encode(said) + b"\n")

    async def run(self) -> None:
        """Hear the other end until it is gone."""
        try:
            while line := await self._reader.readline():
                self._heard(msgspec.json.decode(line))
        except (OSError, ValueError) as error:  # a process that was killed, or one that is none of ours
            log.debug("channel: %s", error)
        finally:
            self._gone = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_gone())
            self._writer.close()

    def _heard(self, said: dict[str, Any]) -> None:
        if "verb" in said:
            task = asyncio.get_running_loop().create_task(self._do(said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._waiting.get(said["answer"])
        if future is None or future.done():
            return
        if "error" in said:
            kind, detail, hint = said["error"]
            future.set_exception(DelegatorError(Kind[kind], detail, hint=hint))
        else:
            future.set_result(said["value"])

    async def _do(self, said: dict[str, Any]) -> None:
        try:
            done: dict[str, object] = {"value": await self._answer(said["verb"], said["argument"])}
        except DelegatorError as error:
            done = {"error": (error.kind.name, error.detail, error.hint)}
        except Exception:
            log.exception("channel: a fault of ours")
            done = {"error": (Kind.UNAVAILABLE.name, "a fault of ours, see the log", "")}
        if "call" in said and not self._gone:
            self._write({"answer": said["call"], **done})


async def joined(sock: socket.socket, answer: Answer) -> Channel:
    """One end of a pair."""
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LONGEST)
    return Channel(reader, writer, answer)


def _gone() -> DelegatorError:
    return DelegatorError(Kind.UNAVAILABLE, "the process at the other end is gone")
