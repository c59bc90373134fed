"""What settings turn into: everything a delegator serves with, made whole before any of it is used.

A start makes the parts once; a reload makes them again and exchanges them. Reading a list of revoked certificates
takes 0.4 s for 100,000 of them (measured), so a reload makes its parts in a thread and the loop goes on.
The invariant: making parts changes nothing that serves; what is not in order is a DelegatorError (CONFIGURATION).
Must not live here: the store's connections, sockets, anything that must not be made twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from delegator.callbacks.calling import Caller, Needs, callers
from delegator.callbacks.guard import Limits
from delegator.config import Settings
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, NotificationKind
from delegator.model.places import networks, normal_delegator
from delegator.net import descriptors
from delegator.net.aside import aside
from delegator.net.balancers import Balancers, balancers_of
from delegator.net.crowds import Caps
from delegator.net.reverse import Domains, load_domains
from delegator.net.serve import Deadlines
from delegator.notify import Carrier
from delegator.notify.carriers import carriers, delegator_name
from delegator.outbound import Outbound
from delegator.provisioning.certifying import load_authority
from delegator.sealing import SealingKey
from delegator.store import Store, keyring, open_named
from delegator.store.engines.sqlite.soundness import require_sound
from delegator.wire.certificate import host_of
from delegator.wire.presented import presented
from delegator.wire.tls import TlsContext, serving
from pki import Authority, PkiError
from pki.pair import Pair
from pki.trust import TrustStore

log = logging.getLogger(__name__)
Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Parts:
    """All of it. `shown` is the pair that devices see; `called_with` is the one that delegates see, or what is wrong
    with it; `ends` says when each of the files that we serve with ends, by its name in metrics and readiness."""

    settings: Settings
    trust: TrustStore
    shown: Pair
    called_with: Pair | DelegatorError
    context: TlsContext
    key: SealingKey
    callers: dict[CallbackWay, Caller]
    domains: Domains | None
    carriers: dict[NotificationKind, Carrier]
    ends: dict[str, datetime]
    enrolment: Authority | None = None
    balancers: Balancers | None = None
    name: str = "localhost"
    """The host that our certificate is for, as callers need it."""
    alternates: tuple[str, ...] = ()
    """Other delegators, as devices are told them."""

    @property
    def factory_anchor(self) -> str:
        """The factory's anchors as PEM, for devices."""
        return "".join(anchor.public_bytes(Encoding.PEM).decode() for anchor in _servers(self.trust, self.enrolment,
                                                                                        self.shown).anchors)

    @property
    def limits(self) -> Limits:
        callbacks = self.settings.callbacks
        return Limits(callbacks.running, callbacks.waiting, callbacks.budget)

    @property
    def deadlines(self) -> Deadlines:
        limits = self.settings.limits
        return Deadlines(silent=limits.handshake, handshake=limits.handshake, request=limits.request,
                         idle=limits.idle, writing=limits.writing)

    @property
    def caps(self) -> Caps:
        """As the settings say, as far as the process may hold so many files open."""
        limits = self.settings.limits
        return descriptors.fitted(Caps(limits.connections, limits.connections_per_source, limits.half_open),
                                  descriptors.limit(), self.settings.store.connections)

    @property
    def shortage(self) -> str:
        """What there is to say where the process may hold fewer files open than the settings need; else ""."""
        return descriptors.shortage(self.settings.limits.connections, descriptors.limit(),
                                    self.settings.store.connections)


class Retired:
    """What parts that were exchanged hold open, let go of when nobody can be using it any more."""

    def __init__(self) -> None:
        self._open: list[Callable[[], None]] = []

    def add(self, old: Parts, new: Parts) -> None:
        """A call that began with the old parts has ended when its budget is over."""
        closing: list[Callable[[], None]] = [
            caller.close for kind, caller in old.callers.items() if new.callers.get(kind) is not caller]
        if old.domains is not None and old.domains is not new.domains:
            closing.append(old.domains.close)
        later = asyncio.get_running_loop().call_later
        for close in closing:
            self._open.append(close)
            later(max(old.settings.callbacks.budget, old.settings.domains.budget) + 1, self._let_go, close)

    def _let_go(self, close: Callable[[], None]) -> None:
        self._open.remove(close)
        close()

    def close(self) -> None:
        """Let go of all of it now."""
        for close in self._open:
            close()


def prepare(settings: Settings, now: Clock, before: Parts | None = None,
            withdrawn: frozenset[int] = frozenset()) -> Parts:
    """Make everything. What `before` remembers of the DNS stays where its settings did; `withdrawn` are the serials
    of enrolments that were revoked. Raises DelegatorError (CONFIGURATION)."""
    trust, outbound = replace(load_trust(settings), withdrawn=withdrawn), load_outbound(settings)
    shown, called_with = load_shown(settings), load_called_with(settings, before)
    enrolment = load_enrolment(settings, trust)
    same_domains = before is not None and before.settings.domains == settings.domains
    return Parts(settings, trust, shown, called_with, serving(shown, trust, now), load_key(settings),
                 _callers(settings, called_with, _servers(trust, enrolment, shown), outbound, now),
                 before.domains if before is not None and same_domains else load_domains(settings.domains),
                 carriers(settings, outbound, now), _ends(shown, called_with, trust), enrolment,
                 balancers_of(settings.server.proxy_from), host_of(shown.leaf) or delegator_name(settings),
                 _alternates(settings.server.alternates))


def _alternates(said: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(map(normal_delegator, said))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[server] alternates: {error}",
                             hint='such as ["delegator-2.example.com:4433"]') from None


def refitted(before: Parts, now: Clock, *, trust: TrustStore, shown: Pair, key: SealingKey,
             called_with: Pair | DelegatorError, enrolment: Authority | None) -> Parts:
    """The same settings with what was read of their files, as far as it was. Nothing is read here. Raises
    DelegatorError (CONFIGURATION)."""
    callers = _callers(before.settings, called_with, _servers(trust, enrolment, shown),
                       load_outbound(before.settings), now)
    return replace(before, trust=trust, shown=shown, key=key, called_with=called_with, enrolment=enrolment,
                   context=serving(shown, trust, now), callers=callers, ends=_ends(shown, called_with, trust),
                   name=host_of(shown.leaf) or delegator_name(before.settings))


def withdrawing(before: Parts, withdrawn: frozenset[int], now: Clock) -> Parts:
    """The same parts, but that these serials are refused too. Nothing is read: this waits for no disk."""
    trust = replace(before.trust, withdrawn=before.trust.withdrawn | withdrawn)
    return replace(before, trust=trust, context=serving(before.shown, trust, now))


def load_shown(settings: Settings) -> Pair:
    """What devices see of us. Raises DelegatorError (CONFIGURATION)."""
    server = settings.server
    return presented(Path(server.certificate), Path(server.key), minting(server.certificate, "server"))


def minting(certificate: str, section: str) -> str:
    """What to do for a pair that is not there: the command that makes it, for the hosts that it must be for."""
    return (f"python -m pki {_MINTED[section]} {Path(certificate).stem} --alt HOST; or name yours in [{section}] "
            "certificate and key")


FIRST = ("put it back where there was one, for no device knows another; at the very first start begin with: python -m "
          "pki init; the steps after it are in docs/operators.md, First start; or name your authority's certificate in "
          "[server] ca")
_MINTED = {"server": "server", "callbacks": "delegate --client"}
"""How `python -m pki` is asked for the pair of a section."""


def load_called_with(settings: Settings, before: Parts | None = None) -> Pair | DelegatorError:
    """Our client certificate and key for delegates. If they are missing or not in order, the error is returned: each
    call to a delegate reports it, and devices that need no such call are served. A reload does not give up a pair that
    works for one that does not: there the error is raised (CONFIGURATION)."""
    said = settings.callbacks
    try:
        return presented(Path(said.certificate), Path(said.key),
                         minting(said.certificate, "callbacks"))
    except DelegatorError as error:
        if before is not None and isinstance(before.called_with, Pair):
            raise
        return error


def load_enrolment(settings: Settings, trust: TrustStore) -> Authority | None:
    """The authority that signs online: an anchor, and one that may sign devices. Raises DelegatorError."""
    authority = load_authority(settings.enrolment, trust.anchors)
    if authority is not None and not may_sign(authority, trust):
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {settings.enrolment.certificate} is not among [server] "
                             "issuers, so what it signs would be refused", hint="add it there")
    return authority


def may_sign(authority: Authority, trust: TrustStore) -> bool:
    """Whether what it signs is believed here."""
    return authority.certificate in trust.anchors and (
        authority.certificate.public_bytes(Encoding.DER) in (trust.issuers or ()))


def _servers(trust: TrustStore, enrolment: Authority | None, shown: Pair) -> TrustStore:
    """Who may vouch for servers: not an authority that is there for enrolment alone. Its key lies on a machine that
    talks to the world; who steals it must not be able to play a delegate."""
    if enrolment is None or shown.leaf.issuer == enrolment.certificate.subject:
        return trust
    return replace(trust, anchors=tuple(one for one in trust.anchors if one != enrolment.certificate))


def _callers(settings: Settings, shows: Pair | DelegatorError, trust: TrustStore, outbound: Outbound,
             now: Clock) -> dict[CallbackWay, Caller]:
    return callers(Needs(settings.callbacks, lambda: shows, lambda: trust, lambda: outbound, now))


def _ends(shown: Pair, called_with: Pair | DelegatorError, trust: TrustStore) -> dict[str, datetime]:
    ends = {"server": shown.leaf.not_valid_after_utc,
            "factory": min(anchor.not_valid_after_utc for anchor in trust.anchors)}
    if trust.revocation is not None:
        ends["revocation list"] = trust.revocation.next_update
    return ends if isinstance(called_with, DelegatorError) else ends | {
        "callbacks": called_with.leaf.not_valid_after_utc}


def load_trust(settings: Settings) -> TrustStore:
    """The factory's anchors, who beneath them may sign a device (nobody, unless said), and the revocation lists.
    Raises DelegatorError (CONFIGURATION)."""
    server = settings.server
    try:
        trust = TrustStore.load(server.ca, server.crl or None, server.issuers or None)
        return trust if server.issuers else trust.beneath_anchors()
    except PkiError as error:
        hint = error.hint if Path(server.ca).exists() else FIRST
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=hint) from None


def load_key(settings: Settings) -> SealingKey:
    """The sealing keys. Raises DelegatorError (CONFIGURATION)."""
    return keyring.load(settings.sealing, settings.store)


def load_outbound(settings: Settings) -> Outbound:
    """Where delegates may be. Raises DelegatorError (CONFIGURATION)."""
    try:
        return Outbound(networks(settings.outbound.allow), frozenset({settings.server.port}))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[outbound] allow: {error}") from None


async def open_store_to_serve(settings: Settings) -> Store:
    """The store that settings name, for a server: a file that is damaged is served by none, and not written to. What
    this comes to store.engines.sqlite.rehearsal tells beforehand. Raises DelegatorError (CONFIGURATION)."""
    new = await aside(partial(keyring.unmade, settings.store), "looking for the database")
    if not settings.store.url:
        await asyncio.to_thread(require_sound, Path(settings.store.path))
    store = await open_settings_store(settings)
    saved = await aside(partial(keyring.beside, settings.store), "looking beside the database")
    if saved:
        log.warning("database %s: %s", settings.store.path, saved)
    if new:
        log.warning("made a new, empty database at %s", new)
    return store


async def open_settings_store(settings: Settings) -> Store:
    """The store that settings name, whoever opens it."""
    return await open_named(settings.store, await aside(partial(load_key, settings), "reading the sealing keys"))


def watched(settings: Settings) -> tuple[str, ...]:
    """The files that we serve with: who changes one of them does not have to say so."""
    server, callbacks, enrolment = settings.server, settings.callbacks, settings.enrolment
    return (server.certificate, server.key, server.ca, server.crl, server.issuers,
            callbacks.certificate, callbacks.key, enrolment.certificate, enrolment.key, enrolment.passphrase_file)
