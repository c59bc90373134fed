"""Faults that go on all the time while a delegator is soaked: each does no harm alone, together they are a bad day.

The invariant: every trouble is counted, and one that does not end as it should is kept in words.
Must not live here: the load that is measured, samples.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.fleet import HOST, Fleet
from delegator.sealing import SealingKey, read_key_file
from delegator.store import open_named

SLOW = 40
"""Peers that hold a connection without saying anything, or say a byte now and then."""
RELEASED = 50
"""Claims that an operator releases in one go, so that devices are served anew and not only answered again."""


@dataclass
class Troubles:
    """Faults on a thread of their own, until `stop`. `absent` are tags of a customer whose delegate is down."""

    fleet: Fleet
    address: tuple[str, int]
    pid: int
    absent: Sequence[str]
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    _slow: list[socket.socket] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End all of it and let go of every connection."""
        self._stopping.set()
        self._thread.join()
        for one in self._slow:
            one.close()

    def _run(self) -> None:
        """Each in its turn, a few of them in a second."""
        every: dict[Callable[[], None], float] = {
            self._reload: 10.0, self._operate: 5.0, self._be_slow: 1.0, self._be_nobody: 0.5, self._be_noise: 0.5,
            self._be_stranger: 0.5, self._ask_absent: 0.5}
        due = {work: time.monotonic() + seconds * random.random() for work, seconds in every.items()}
        while not self._stopping.wait(0.05):
            for work, moment in due.items():
                if moment <= time.monotonic():
                    due[work] = time.monotonic() + every[work]
                    self._try(work)

    def _try(self, work: Callable[[], None]) -> None:
        name = work.__name__.strip("_").replace("_", " ")
        try:
            work()
            self.counts[name] += 1
        except Exception as error:
            self.wrong.append(f"{name}: {error!r}")

    # --- the faults ---

    def _reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def _operate(self) -> None:
        """An operator releases claims, from a process that is not the server."""
        asyncio.run(self._release())

    async def _release(self) -> None:
        settings = self.fleet.settings
        store = await open_named(settings.store, SealingKey(read_key_file(Path(settings.sealing.key_file))))
        try:
            for claim in random.sample(found := await store.claims(most=500), min(RELEASED, len(found))):
                await store.ownership.release(claim.service_tag, datetime.now(UTC))
        finally:
            await store.close()

    def _be_slow(self) -> None:
        """New slow peers in place of those that were shut out; the rest say one more byte."""
        for one in self._slow:
            with contextlib.suppress(OSError):
                one.send(b"\x16")
        for one in self._slow[SLOW:]:
            one.close()
        del self._slow[SLOW:]
        self._slow[:0] = [socket.create_connection(self.address, 5) for _ in range(SLOW // 4)]

    def _be_nobody(self) -> None:
        """No certificate at all: refused with an alert."""
        context = ssl.create_default_context(cafile=str(self.fleet.pki.ca_path))
        with (contextlib.suppress(OSError), socket.create_connection(self.address, 5) as raw,
              context.wrap_socket(raw, server_hostname="localhost") as peer):
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert not peer.recv(100), "answered without a certificate"

    def _be_noise(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self.address, 5) as raw:
            raw.sendall(random.randbytes(random.randrange(1, 4000)))
            raw.recv(100)

    def _be_stranger(self) -> None:
        """A device that asks for another's tag."""
        assert b"IdentityRejected" in self._ask(self.absent[0], b"NOTMINE"), "another's tag was not refused"

    def _ask_absent(self) -> None:
        tag = random.choice(self.absent)
        assert b"TryLater" in self._ask(tag, tag.encode()), "a delegate that is down was not told as try later"

    def _ask(self, tag: str, named: bytes) -> bytes:
        path = self.fleet.pki.certificate_path("device", tag)
        context = ssl.create_default_context(cafile=str(self.fleet.pki.ca_path))
        context.load_cert_chain(path, path.with_suffix(".key"), password="")
        client = http.client.HTTPSConnection(HOST, self.address[1], timeout=15, context=context)
        body = (b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><GetProvisioningCredential '
                b'xmlns="urn:delegator:provisioning:1"><Device><ServiceTag>' + named + b"</ServiceTag></Device>"
                b"<TransactionId>soak-0123456789ab</TransactionId></GetProvisioningCredential></s:Body></s:Envelope>")
        try:
            client.request("POST", "/", body, {"Content-Type": "text/xml; charset=utf-8"})
            return client.getresponse().read()
        finally:
            client.close()
