"""What the database tells by itself: that a small table was changed. Saves every handshake a question.

A connection of its own LISTENs; a trigger of the schema says the revision when it changes. Twice a second the
revision is asked for all the same, so that a server that fell silent is noticed before a changed route is a second old.
The invariant: `number` is None as soon as we may have missed something; who finds None asks the database. It never
has the same value before and after a gap: a server that took over may count on from an older revision.
Must not live here: what a revision means (store.registry).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from delegator.clockwork.rounds import kept
from delegator.store.engines.postgres.troubles import words_of

log = logging.getLogger(__name__)
CHANNEL = "delegator_revision"
BEAT = 0.4
"""Seconds between questions, and how long an answer may take: together less than the second that is promised."""
PAUSE = 0.3
"""Seconds until the next attempt to connect."""


class Watch:
    """Listens in a task of its own until `close`. `reached` is called whenever the database was reached again,
    `changed` whenever `number` is another."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], question: str, reached: Callable[[], None],
                 fit: Callable[[Any], None] = lambda connection: None) -> None:
        """`fit` raises for a connection that is not to be listened to any more."""
        self.number: int | None = None
        self.changed: Callable[[], None] = lambda: None
        self._gaps = 0
        self._deaf = False
        """It was said in the log that nothing is heard: not again for each attempt."""
        self._connect, self._question, self._reached, self._fit = connect, question, reached, fit
        self._task = asyncio.get_running_loop().create_task(kept(self._run, "hearing of changes"))

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._connect()
            except Exception as error:
                log.debug("listening: %s", words_of(error))
            else:
                await self._listen(connection)
            await asyncio.sleep(PAUSE)

    async def _listen(self, connection: Any) -> None:
        """Until the connection fails."""
        self._gaps += 1
        try:
            await connection.add_listener(CHANNEL, self._told)
            self._reached()
            while True:
                self._fit(connection)
                async with asyncio.timeout(BEAT):
                    self._heard(int(await connection.fetchval(self._question)))
                await asyncio.sleep(BEAT)
                if self._deaf:  # for a whole beat: on a slow network it comes and goes
                    self._deaf = False
                    log.warning("the database tells of changes again")
        except Exception as error:
            log.log(logging.DEBUG if self._deaf else logging.WARNING,
                    "the database does not tell of changes now, it is asked at each handshake: %s", words_of(error))
            self._deaf = True
        finally:
            self.number = None
            connection.terminate()

    def _told(self, _connection: object, _process: int, _channel: str, number: object) -> None:
        if self.number is not None:
            self._heard(int(str(number)))

    def _heard(self, number: int) -> None:
        """Answers and notices may cross; on one connection the revision only grows."""
        before = self.number or 0
        self.number = max(self._gaps << 48 | number, before)
        if self.number != before:
            self.changed()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
