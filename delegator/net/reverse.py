"""Whose domain a peer's address is in: look-ups with a deadline, shared, bounded, and remembered. A5, T-B4.

The invariants: one address is looked up once at a time, whoever waits for it; a look-up ends within its budget and
costs nobody but those who wait for it (research finding 11); what is remembered is bounded in number and time.
Must not live here: the walk itself (net.walk), the protocol (net.dns), policy.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from delegator import config
from delegator.clockwork.deadline import Elsewhere
from delegator.domains import DnsTrouble, Finding, Naming, Registrable, asked_about, domain_of
from delegator.errors import DelegatorError, Kind, extra
from delegator.model import HOST_NAME, Customer, Delegate
from delegator.model.places import Address, Network, networks, normal_name
from delegator.net.walk import Walk
from pki import PkiError
from pki.trust import read_anchors

if TYPE_CHECKING:
    from delegator.net.dns import Resolver

RUNNING = 32
"""Look-ups at once: as many as a small resolver answers without losing any."""
WAITING = 512
"""Look-ups that wait for their turn; further devices are told to try later at once."""
SHORTEST, LONGEST = 5, 3600
"""Seconds a finding is remembered, whatever its records say: a zone with TTL 0 must not cost a look-up for each
request, one with a week must not outlive a move."""
TRIES = 4
"""Questions to silent name servers that fit into one budget."""
SYSTEM = "system"
"""Instead of a file: the authorities this machine trusts, wherever its distribution keeps them."""
_SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Domains:
    """The domains that addresses are in, as far as reverse DNS says. Make it with `load_domains`."""

    def __init__(self, resolver: Resolver, registrable: Registrable, naming: Naming, *, budget: float, most: int,
                 private: Sequence[Network] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._resolver, self._registrable, self._naming = resolver, registrable, naming
        self._budget = budget
        self._private = tuple(private)
        self._memory = _Memory(most, clock)
        self._flights: dict[Address, asyncio.Task[Finding]] = {}
        self._turn = asyncio.Semaphore(RUNNING)

    def customer(self, name: str) -> Customer | None:
        """The customer of this name, if it stands for a domain."""
        domain = domain_of(name)
        return None if domain is None else self._naming.customer(domain)

    def delegate(self, name: str) -> Delegate | None:
        """The delegate of this name, if it stands for a domain. Before it is called, see `reach`."""
        domain = domain_of(name)
        return None if domain is None else self._naming.delegate(domain)

    def found(self, finding: Finding) -> Delegate:
        """The delegate of a finding that has a domain."""
        assert finding.domain is not None
        return self._naming.delegate(finding.domain, finding.delegate_address)

    async def find(self, peer: str) -> Finding:
        """Whose domain a peer's address is in. Never raises for anything the DNS says or does not say."""
        address, refusal = asked_about(peer, self._private)
        if address is None:
            return Finding(refusal)
        return self._memory.of(address) or await self._shared(address)

    async def _shared(self, address: Address) -> Finding:
        """The look-up under way, or a new one. Who stops waiting for it ends it for nobody else."""
        flight = self._flights.get(address)
        if flight is None:
            if len(self._flights) >= RUNNING + WAITING:
                return Finding(f"reverse DNS of {address}: {len(self._flights)} look-ups wait already", late=True)
            flight = asyncio.get_running_loop().create_task(self._look_up(address))
            self._flights[address] = flight
            flight.add_done_callback(lambda _: self._flights.pop(address))
        try:
            with Elsewhere():
                return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled() and not _is_cancelled():  # by `close`: who waits for it still wants an answer
                return Finding(f"reverse DNS of {address}: it was let go of", late=True)
            raise

    async def _look_up(self, address: Address) -> Finding:
        """A failure is remembered too, for the shortest time: a rack behind one address waits once."""
        walk, ttl = self._walk(), 0
        try:
            async with asyncio.timeout(self._budget), self._turn:
                finding = await walk.finding(address)
                ttl = walk.ttl
        except TimeoutError:
            finding = Finding(f"reverse DNS of {address}: no answer within {self._budget:g} s", late=True)
        except DnsTrouble as error:
            finding = Finding(f"reverse DNS of {address}: {error}", late=True)
        self._memory.keep(address, finding, ttl)
        return finding

    async def reach(self, delegate: Delegate) -> Delegate:
        """The delegate as it can be called: one that stands for a domain with its address as of now, any other as
        it is. Raises DelegatorError (UNREACHABLE)."""
        domain = domain_of(delegate.name)
        if domain is None or getattr(delegate.callback, "address", None) is not None:
            return delegate
        detail = "its host name has no address"
        try:
            async with asyncio.timeout(self._budget), self._turn:
                address = await self._walk().delegate_address(domain)
        except (TimeoutError, DnsTrouble) as error:
            address, detail = None, str(error) or "the DNS does not answer"
        if address is None:
            raise DelegatorError(Kind.UNREACHABLE, f"delegate {delegate.name}: {detail}")
        return self._naming.delegate(domain, address)

    def _walk(self) -> Walk:
        return Walk(self._resolver, self._registrable, self._naming)

    def close(self) -> None:
        """Let go of look-ups under way."""
        for flight in self._flights.values():
            flight.cancel()


def _is_cancelled() -> bool:
    """Whether it is we who are to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Memory:
    """Findings by address, the least recently used of too many forgotten."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._kept: OrderedDict[Address, tuple[float, Finding]] = OrderedDict()

    def of(self, address: Address) -> Finding | None:
        until, finding = self._kept.get(address, (0.0, None))
        if finding is None or until <= self._clock():
            self._kept.pop(address, None)
            return None
        self._kept.move_to_end(address)
        return finding

    def keep(self, address: Address, finding: Finding, ttl: int) -> None:
        self._kept[address] = self._clock() + max(SHORTEST, min(LONGEST, ttl)), finding
        self._kept.move_to_end(address)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def load_domains(settings: config.Domains) -> Domains | None:
    """Domain association as the settings say; None while it is off. Raises DelegatorError (CONFIGURATION)."""
    if not settings.enabled:
        return None
    try:
        from publicsuffixlist import PublicSuffixList

        from delegator.net.dns import Resolver
    except ModuleNotFoundError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[domains] is enabled, but package {error.name} is not installed",
                             hint=f"{extra('dns')}; or set [domains] enabled = false") from None
    try:
        key = "nameservers"
        resolver = Resolver(settings.nameservers, settings.budget / TRIES, settings.budget)
        key = "private_networks"
        private = networks(settings.private_networks)
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[domains] {key}: {error}") from None
    return Domains(resolver, PublicSuffixList().privatesuffix, _naming(settings), budget=settings.budget,
                   most=settings.cache, private=private)


def _naming(settings: config.Domains) -> Naming:
    label = normal_name(settings.label)
    if "." in label or not HOST_NAME.fullmatch(label):
        raise DelegatorError(Kind.CONFIGURATION, "[domains] label: must be one label of a host name")
    return Naming(label, settings.callback_port, _anchor(settings.trust_anchor),
                  settings.policy or None)


def _anchor(setting: str) -> str | None:
    """The anchors for delegates' certificates as PEM, with everything else in the file dropped; None means the
    factory's."""
    if not setting:
        return None
    files = _SYSTEM_FILES if setting == SYSTEM else (setting,)
    path = next((Path(file) for file in files if Path(file).exists()), Path(files[0]))
    try:
        hint = 'name a file with authorities, "system", or "" for the factory'
        found = read_anchors(path, hint, twice=setting == SYSTEM)
    except PkiError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[domains] trust_anchor: {error.detail}", hint=error.hint) from None
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
