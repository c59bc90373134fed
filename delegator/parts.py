"""What settings turn into: everything a delegator serves with, made whole before any of it is used.

A start makes the parts once; a reload makes them again and exchanges them. Reading a list of revoked certificates
takes 0.4 s for 100,000 of them (measured), so a reload makes its parts in a thread and the loop goes on.
The invariant: making parts changes nothing that serves; what is not in order is a DelegatorError (CONFIGURATION).
Must not live here: the store's connections, sockets, anything that must not be made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from delegator.callbacks import Caller
from delegator.callbacks.guard import Limits
from delegator.callbacks.local import Allowance, LocalCaller, user_named
from delegator.callbacks.soap import SoapCaller
from delegator.callbacks.ssh import SshCaller
from delegator.config import Settings
from delegator.enrolment import load_authority
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackKind, NotificationKind
from delegator.net.balancers import Balancers, balancers_of
from delegator.net.crowds import Caps
from delegator.net.reverse import Domains, load_domains
from delegator.net.serve import Deadlines
from delegator.notify import Carrier
from delegator.notify.carriers import carriers
from delegator.outbound import Outbound, networks
from delegator.sealing import SealingKey, read_key_file
from delegator.store import Store, open_named
from delegator.store.soundness import require_sound
from delegator.wire.tls import TlsContext, server_context
from pki import Authority, PkiError
from pki.trust import TrustStore

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Parts:
    """All of it. `ends` says when what we serve with ends, by its name in metrics and readiness."""

    settings: Settings
    trust: TrustStore
    context: TlsContext
    key: SealingKey
    callers: dict[CallbackKind, Caller]
    domains: Domains | None
    carriers: dict[NotificationKind, Carrier]
    ends: dict[str, datetime]
    enrolment: Authority | None = None
    balancers: Balancers | None = None

    @property
    def factory_anchor(self) -> str:
        """The factory's anchors as PEM, for devices."""
        return "".join(anchor.public_bytes(Encoding.PEM).decode() for anchor in _servers(self.trust, self.enrolment,
                                                                                        self.settings).anchors)

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
        limits = self.settings.limits
        return Caps(limits.connections, limits.connections_per_source, limits.half_open)


class Retired:
    """What parts that were exchanged hold open, let go of when nobody can be using it any more."""

    def __init__(self) -> None:
        self._open: list[Callable[[], None]] = []

    def add(self, old: Parts, new: Parts) -> None:
        """A call that began with the old parts has ended when its budget is over."""
        closing: list[Callable[[], None]] = [caller.close for caller in old.callers.values()]
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
    enrolment = _enrolment(settings, trust)
    server = settings.server
    context = server_context(Path(server.certificate), Path(server.key), trust, now)
    same_domains = before is not None and before.settings.domains == settings.domains
    return Parts(settings, trust, context, load_key(settings),
                 _callers(settings, _servers(trust, enrolment, settings), outbound, now),
                 before.domains if before is not None and same_domains else load_domains(settings.domains),
                 carriers(settings, outbound, now), _ends(settings, trust), enrolment,
                 balancers_of(settings.server.proxy_from))


def _enrolment(settings: Settings, trust: TrustStore) -> Authority | None:
    """The authority that signs online: an anchor, and one that may sign devices."""
    authority = load_authority(settings.enrolment, trust.anchors)
    if authority is not None and authority.certificate.public_bytes(Encoding.DER) not in (trust.issuers or ()):
        raise DelegatorError(Kind.CONFIGURATION, f"enrolment: {settings.enrolment.certificate} is not among [server] "
                             "issuers, so what it signs would be refused", hint="add it there")
    return authority


def _servers(trust: TrustStore, enrolment: Authority | None, settings: Settings) -> TrustStore:
    """Who may vouch for servers: not an authority that is there for enrolment alone. Its key lies on a machine that
    talks to the world; who steals it must not be able to play a delegate."""
    if enrolment is None or _issuer(settings) == enrolment.certificate.subject:
        return trust
    return replace(trust, anchors=tuple(one for one in trust.anchors if one != enrolment.certificate))


def _issuer(settings: Settings) -> x509.Name:
    return x509.load_pem_x509_certificates(Path(settings.server.certificate).read_bytes())[0].issuer


def _callers(settings: Settings, trust: TrustStore, outbound: Outbound, now: Clock) -> dict[CallbackKind, Caller]:
    said = settings.callbacks
    soap = SoapCaller(Path(said.certificate), Path(said.key), trust, now, said.budget, outbound)
    local = LocalCaller(Allowance(said.budget, said.local_cpu, said.local_memory, user_named(said.local_user)))
    return {CallbackKind.SOAP: soap, CallbackKind.SSH: SshCaller(outbound), CallbackKind.LOCAL: local}


def _ends(settings: Settings, trust: TrustStore) -> dict[str, datetime]:
    server = x509.load_pem_x509_certificates(Path(settings.server.certificate).read_bytes())[0]
    ends = {"server": server.not_valid_after_utc,
            "factory": min(anchor.not_valid_after_utc for anchor in trust.anchors)}
    if trust.revocation is not None:
        ends["revocation list"] = trust.revocation.next_update
    return ends | _client_end(Path(settings.callbacks.certificate))


def _client_end(path: Path) -> dict[str, datetime]:
    """Of what delegates are shown: not there, or none, is told where a delegate is called, and keeps nobody else."""
    try:
        return {"callbacks": x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc}
    except (OSError, ValueError):
        return {}


def load_trust(settings: Settings) -> TrustStore:
    """The factory's anchors, who beneath them may sign a device (nobody, unless said), and the revocation lists.
    Raises DelegatorError (CONFIGURATION)."""
    server = settings.server
    try:
        trust = TrustStore.load(server.ca, server.crl or None, server.issuers or None)
        return trust if server.issuers else trust.beneath_anchors()
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, error.detail, hint=error.hint) from None


def load_key(settings: Settings) -> SealingKey:
    """The sealing keys. Raises DelegatorError (CONFIGURATION)."""
    files = (settings.sealing.key_file, *settings.sealing.older_key_files)
    return SealingKey(*(read_key_file(Path(file)) for file in files))


def load_outbound(settings: Settings) -> Outbound:
    """Where delegates may be. Raises DelegatorError (CONFIGURATION)."""
    try:
        return Outbound(networks(settings.outbound.allow), frozenset({settings.server.port}))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"$.outbound.allow: {error}") from None


async def open_store_to_serve(settings: Settings) -> Store:
    """The store that settings name, for a server: a file that is damaged is served by none, and not written to. What
    this comes to store.rehearsal tells beforehand. Raises DelegatorError (CONFIGURATION)."""
    if not settings.store.url:
        await asyncio.to_thread(require_sound, Path(settings.store.path))
    return await open_settings_store(settings)


async def open_settings_store(settings: Settings) -> Store:
    """The store that settings name, whoever opens it."""
    return await open_named(settings.store, load_key(settings))


def files_stamp(settings: Settings) -> tuple[int, ...]:
    """Changes when a file that we serve with is changed, so that nobody has to say so."""
    server, callbacks, enrolment = settings.server, settings.callbacks, settings.enrolment
    names = (server.certificate, server.key, server.ca, server.crl, server.issuers,
             callbacks.certificate, callbacks.key, enrolment.certificate, enrolment.key)
    paths = [Path(name) for name in names if name]
    return tuple(path.stat().st_mtime_ns for path in paths if path.exists())
