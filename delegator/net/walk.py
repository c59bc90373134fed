"""One walk through the DNS, from an address to the domain it is in and that domain's delegate. A5, T-B4.

PTR names; those of them whose own look-up leads back (RFC 8601 2.7.3); the longest domain they stand in that has a
delegate. Several names must agree: whoever owns the address may write any PTR, so a choice would be theirs.
The invariant: a question without an answer ends the walk (DnsTrouble); it never leads to a shorter domain.
Must not live here: deadlines and what is remembered (net.reverse), the protocol (net.dns).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from delegator.domains import MOST_DOMAINS, DnsTrouble, Finding, Naming, Registrable, candidates, host_names
from delegator.model.places import Address
from delegator.wire.dns_weight import together

if TYPE_CHECKING:
    from delegator.net.dns import Answer, Resolver

T = TypeVar("T")
BELIEVED = 2**31
"""Seconds: no answer asks for more (RFC 2181 8)."""


async def _all(questions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers, asked for at once. The first that is trouble ends the other questions too: else they would be asked
    again and again for nobody."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in questions]
    except* DnsTrouble as troubles:
        raise DnsTrouble(str(troubles.exceptions[0])) from None
    return [task.result() for task in tasks]


class _TooManyDomains(Exception):
    """The names of an address stand in more domains than are asked about."""


class Walk:
    """One look-up. `ttl` is the least of all its answers', those that said "nothing" too."""

    def __init__(self, resolver: Resolver, registrable: Registrable, naming: Naming) -> None:
        self._resolver = resolver
        self._registrable = registrable
        self._naming = naming
        self._asked: dict[str, str | None] = {}
        self.ttl = BELIEVED

    async def finding(self, address: Address) -> Finding:
        """Whose domain the address is in. Raises DnsTrouble."""
        with together():
            return await self._finding(address)

    async def _finding(self, address: Address) -> Finding:
        said = f"reverse DNS of {address}"
        names = host_names(self._heard(await self._resolver.names(address)))
        if not names:
            return Finding(f"{said}: no host name")
        confirmed = await self._confirmed(names, address)
        if not confirmed:
            return Finding(f"{said}: host {', '.join(names)}, whose own address it is not")
        said += f": host {', '.join(confirmed)}, forward-confirmed"
        owners = {self._registrable(name) for name in confirmed} - {None}
        if len(owners) == 1:
            found = await self._in_domain(said, confirmed)
        else:
            found = Finding(f"{said}, ambiguous: in several domains" if owners else f"{said}, in no domain")
        return replace(found, hosts=tuple(confirmed))

    async def _confirmed(self, names: Sequence[str], address: Address) -> list[str]:
        found = await _all(self._resolver.addresses(name, address.version) for name in names)
        return [name for name, answer in zip(names, found, strict=True) if address in self._heard(answer)]

    async def _in_domain(self, said: str, confirmed: Sequence[str]) -> Finding:
        try:
            found = dict([await self._longest(name) for name in confirmed])
        except _TooManyDomains:
            return Finding(f"{said}, in more than {MOST_DOMAINS} domains that may have a delegate")
        found.pop(None, None)
        if not found:
            return Finding(f"{said}, no domain of it has a host {self._naming.label}")
        if len(found) > 1:
            return Finding(f"{said}, ambiguous: domains {', '.join(map(str, found))} have a delegate each")
        ((domain, address),) = found.items()
        return Finding(f"{said}, domain {domain}", domain, address)

    async def _longest(self, name: str) -> tuple[str | None, str | None]:
        """The longest domain of a host that has a delegate, and an address of that."""
        for domain in candidates(name, self._registrable(name)):
            if domain not in self._asked and len(self._asked) >= MOST_DOMAINS:
                raise _TooManyDomains
            address = await self.delegate_address(domain)
            if address is not None:
                return domain, address
        return None, None

    async def delegate_address(self, domain: str) -> str | None:
        """An address of a domain's delegate, IPv4 first: a delegator without IPv6 is still common; None where there
        is no such host. Raises DnsTrouble."""
        host = self._naming.host(domain)
        if host is not None and domain not in self._asked:
            both = await _all(self._resolver.addresses(host, version) for version in (4, 6))
            addresses = [str(address) for answer in both for address in self._heard(answer)]
            self._asked[domain] = addresses[0] if addresses else None
        return self._asked.get(domain)

    def _heard(self, answer: Answer[T]) -> tuple[T, ...]:
        self.ttl = min(self.ttl, answer.ttl)
        return answer.values
