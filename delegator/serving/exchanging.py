"""A reload that is not in order as a whole: what of it can be taken all the same, file by file.

Settings are taken whole or not at all. Files are not: a revocation list that is in order counts at once although the
server's key beside it is not, and a renewed certificate is shown although the list was cut off. What is not in order
stays as it was.
Each file is read aside, so that one on a disk that does not answer holds up no other.
The invariants: whatever is read here, nobody is let in who was not before by what is in order; what was withdrawn stays
withdrawn.
Must not live here: what settings turn into (parts), when (app).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from delegator.errors import DelegatorError
from delegator.net.aside import aside
from delegator.serving.parts import (
    Clock,
    Parts,
    load_called_with,
    load_enrolment,
    load_key,
    load_shown,
    load_trust,
    may_sign,
    refitted,
)
from pki import Authority
from pki.pair import Pair
from pki.trust import TrustStore

T = TypeVar("T")
BRIEFLY = 5.0
"""Seconds for each file: the whole has used up its time already if one of them lies on a disk that does not answer."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Parts to go on with, and the names of those that are new."""

    parts: Parts
    taken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads the files of the settings in effect, each on its own; `late` is called where one answers after all."""

    before: Parts
    late: Callable[[], None]

    async def read(self, load: Callable[[], T], what: str) -> T | None:
        """None for what is not in order, or does not answer; why was told of the reload as a whole."""
        try:
            return await aside(load, f"reading {what} again", BRIEFLY, self.late)
        except DelegatorError:
            return None

    async def trust(self) -> TrustStore:
        """Anchors and lists anew, else the lists alone, else those that are in order. The lists are read beside the
        anchors, so that they wait for no disk but their own."""
        trust, tightened = await asyncio.gather(
            self.read(partial(load_trust, self.before.settings), "anchors and revocation lists"), self.tightened())
        return tightened if trust is None else trust

    async def tightened(self) -> TrustStore:
        crl = self.before.settings.server.crl
        trust = await self.read(partial(self.before.trust.tightened, crl), "revocation lists") if crl else None
        return trust or self.before.trust

    async def believed(self, newest: TrustStore) -> tuple[TrustStore, Authority | None]:
        """Anchors, and an authority that signs online whose certificates they believe."""
        before = self.before
        if not before.settings.enrolment.enabled:
            return newest, None
        enrolment = await self.read(partial(load_enrolment, before.settings, newest),
                                    "the authority of [enrolment]") or before.enrolment
        if enrolment is None or may_sign(enrolment, newest):
            return newest, enrolment
        return await self.tightened(), before.enrolment


async def salvaged(before: Parts, withdrawn: frozenset[int], now: Clock,
                   late: Callable[[], None] = lambda: None) -> Salvaged | None:
    """What can be taken, with the settings that are in effect; None where that is nothing. `late` is called in the loop
    where a file that did not answer in time does so after all."""
    settings, reading = before.settings, _Reading(before, late)
    newest, shown, called_with, key = await asyncio.gather(
        reading.trust(), reading.read(partial(load_shown, settings), "the server's certificate and key"),
        reading.read(partial(load_called_with, settings, before), "the certificate and key for delegates"),
        reading.read(partial(load_key, settings), "sealing keys"))
    trust, enrolment = await reading.believed(newest)
    trust = replace(trust, withdrawn=trust.withdrawn | withdrawn)
    wanted = replace(before, trust=trust, enrolment=enrolment, key=key or before.key, shown=shown or before.shown,
                     called_with=called_with or before.called_with)
    for one in (wanted, replace(wanted, shown=before.shown, called_with=before.called_with)):
        with contextlib.suppress(DelegatorError):
            return _with_names(before, refitted(before, now, trust=one.trust, shown=one.shown, key=one.key,
                                                called_with=one.called_with, enrolment=one.enrolment))
    return None


def _with_names(before: Parts, parts: Parts) -> Salvaged | None:
    new = {"anchors and revocation lists": parts.trust != before.trust,
           "the server's certificate": parts.shown != before.shown,
           "the certificate for delegates": isinstance(parts.called_with, Pair)
           and parts.called_with != before.called_with,
           "sealing keys": parts.key.known != before.key.known}
    names = tuple(name for name, is_new in new.items() if is_new)
    return Salvaged(parts, names) if names else None
