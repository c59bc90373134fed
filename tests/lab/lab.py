"""The whole of a delegator in one process: handler, use case, store, guard, alarm, audit, metrics; no socket, program.

Everything between a request and its answer is the product's own, put together as delegator.serving.app does it.
Pretended are what a test must be able to say: the clock, which certificate a connection showed, the customers' servers,
the DNS. The store is the real SQLite driver with the settings that devices are served with; its file lies on a file
system of memory where there is one, so that a commit costs microseconds and nothing of its durability has to be
switched off.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from delegator.callbacks import Callbacks
from delegator.callbacks.breaker import State
from delegator.callbacks.guard import Guard, Limits
from delegator.domains import DnsTrouble, Naming
from delegator.doors.devices.soap import Server
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    CallbackWay,
    Claim,
    Credential,
    Customer,
    Delegate,
    DelegateRequest,
    Deployment,
    HostedCallback,
    LocalCallback,
    Notification,
    PeerCertificate,
    Policy,
    Registration,
    Rule,
    Secret,
    SoapCallback,
    SshCallback,
)
from delegator.model.audited import Entry
from delegator.net.connection import Connection
from delegator.net.dns import Answer, Resolver
from delegator.net.reverse import Domains
from delegator.provisioning import telling
from delegator.provisioning.alarm import Alarm
from delegator.provisioning.certifying import Enroller
from delegator.provisioning.handshake import Handshake, Heard, Own
from delegator.provisioning.telling import Teller
from delegator.sealing import SealingKey
from delegator.serving.app import operations
from delegator.store import Store, open_store
from delegator.store.audit.inspection import Wanted
from delegator.trail import Trail
from delegator.watching import logs
from delegator.watching.auditor import Auditor
from delegator.watching.metrics import Metrics
from delegator.watching.served import Answers
from delegator.wire.http import Request, Response
from pki import Authority

from ..clock import today

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NAMESPACE = "urn:delegator:provisioning:1"
NS = f"{{{NAMESPACE}}}"
SOAP11 = "http://schemas.xmlsoap.org/soap/envelope/"
SECRET = "transaction-0123456789"
OTHER_SECRET = "transaction-of-a-thief"
SHARED = "shared-device"
PEER = "192.0.2.7"
FACTORY = "-----BEGIN CERTIFICATE-----\nthe factory's\n-----END CERTIFICATE-----\n"
SEALING = SealingKey(b"k" * 32)
OPERATOR = "operator lab"


class Clock:
    """The one clock of a lab; it stands until a test moves it."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return (self.at - START).total_seconds()

    def forward(self, **duration: float) -> None:
        self.at += timedelta(**duration)


# --- what is at the other ends ------------------------------------------------------------------------------------


class Servers:
    """Every customer's server, command and program: what they were asked and told, and how they answer. A delegate
    named in `broken` fails with those words; `meanwhile` happens while one is being asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, DelegateRequest, datetime]] = []
        self.told: list[tuple[str, Deployment]] = []
        self.broken: dict[str, str] = {}
        self.deaf: set[str] = set()
        self.meanwhile: Callable[[Delegate, DelegateRequest], Any] | None = None
        self.given: dict[tuple[str, str], Credential] = {}
        self.at: dict[str, str | None] = {}
        """The address at which a delegate was told."""

    @property
    def names(self) -> list[str]:
        """Who was asked, in order."""
        return [name for name, _, _ in self.asked]

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        self.asked.append((delegate.name, request, until))
        if self.meanwhile is not None:
            await self.meanwhile(delegate, request)
        if delegate.name in self.broken:
            raise DelegatorError(Kind.UNREACHABLE, f"delegate {delegate.name}: {self.broken[delegate.name]}")
        new = Credential(f"user of {delegate.name}", Secret(f"password {len(self.given)} of {delegate.name}"))
        return self.given.setdefault((delegate.name, request.claim_id), new)

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        if delegate.name in self.deaf:
            raise DelegatorError(Kind.UNREACHABLE, f"delegate {delegate.name}: deaf")
        self.told.append((delegate.name, deployment))
        self.at[delegate.name] = getattr(delegate.callback, "address", None)

    def close(self) -> None:
        pass


class Dns:
    """Names of addresses and addresses of names; `silent` answers nothing, `asked` says which addresses were."""

    def __init__(self) -> None:
        self.hosts: dict[str, str] = {}
        self.addresses_of: dict[str, str] = {}
        self.silent = False
        self.asked: list[str] = []

    def host(self, address: str, name: str, delegate_at: str = "203.0.113.10") -> None:
        """An address whose name leads back, in a domain with a delegate."""
        self.hosts[address] = name
        self.addresses_of[name] = address
        if delegate_at:
            self.addresses_of["provisioning-delegate." + name.partition(".")[2]] = delegate_at

    async def names(self, address: Any) -> Answer[tuple[bytes, ...]]:
        self.asked.append(str(address))
        if self.silent:
            raise DnsTrouble("silence")
        name = self.hosts.get(str(address))
        return Answer(() if name is None else (tuple(name.encode().split(b".")),), 60)

    async def addresses(self, name: str, version: int) -> Answer[Any]:
        if self.silent:
            raise DnsTrouble("silence")
        found = self.addresses_of.get(name)
        address = None if found is None else ipaddress.ip_address(found)
        return Answer((address,) if address is not None and address.version == version else (), 60)


_numbers = itertools.count(1)


@dataclass
class Wire:
    """A connection that TLS has let in, as far as the handler looks at it."""

    certificate: PeerCertificate | None
    peer_address: str = PEER
    id: str = field(default_factory=lambda: f"1f-{next(_numbers)}")
    connected_at: int = 1
    authenticated_at: int = 2


def key_of(name: str) -> str:
    """The fingerprint of the key that a device of this name has."""
    return hashlib.sha256(name.encode()).hexdigest()


def certificate(*names: str, key: str = "") -> PeerCertificate:
    return PeerCertificate(names, 7, key or key_of(names[0] if names else ""))


# --- what a device sends and sees ---------------------------------------------------------------------------------


def _element(name: str, said: object) -> str:
    """One element for each text; nothing for None."""
    texts = said if isinstance(said, list) else [] if said is None else [said]
    return "".join(f"<{name}>{escape(str(text))}</{name}>" for text in texts)


def envelope(operation: str, inner: str, soap: str = SOAP11) -> bytes:
    return (f'<s:Envelope xmlns:s="{soap}"><s:Body><{operation} xmlns="{NAMESPACE}">{inner}</{operation}>'
            f"</s:Body></s:Envelope>").encode()


def asking(tag: str, secret: str = SECRET, *, serial: str | None = None, macs: Sequence[str] = (),
           model: str | None = None, location: dict[str, str] | None = None, request: str | None = None,
           soap: str = SOAP11) -> bytes:
    """What a device posts to get its credential."""
    device = (_element("ServiceTag", tag) + _element("SerialNumber", serial) + _element("MacAddress", list(macs))
              + _element("Model", model))
    place = "".join(_element(name, text) for name, text in (location or {}).items())
    return envelope("GetProvisioningCredential", f"<Device>{device}</Device>"
                    + (f"<Location>{place}</Location>" if location else "") + _element("TransactionId", secret)
                    + _element("CertificateRequest", request), soap)


def confirming(claim: str, result: str = "Deployed", secret: str | None = None, detail: str | None = None) -> bytes:
    return envelope("ConfirmProvisioning", _element("ClaimId", claim) + _element("Result", result)
                    + _element("Detail", detail) + _element("TransactionId", secret))


@dataclass(frozen=True)
class Reply:
    """An answer as a device reads it."""

    response: Response
    trail: Trail
    level: int

    @property
    def status(self) -> int:
        return self.response.status

    def texts(self, name: str) -> list[str]:
        return [element.text or "" for element in ElementTree.fromstring(self.response.body).iter(NS + name)]

    def text(self, name: str) -> str | None:
        return next(iter(self.texts(name)), None)

    @property
    def fault(self) -> str | None:
        return self.text("Code")

    @property
    def retry_after(self) -> int | None:
        """In seconds; the header and the fault must say the same."""
        said = self.text("RetryAfter")
        assert self.response.headers.get(b"Retry-After") == (None if said is None else said.encode())
        return None if said is None else int(said)

    @property
    def credential(self) -> tuple[str | None, str | None]:
        return self.text("UserName"), self.text("Password")

    @property
    def delegate(self) -> tuple[str | None, str | None]:
        """Where the device goes next, and whom it shall trust there."""
        return self.text("URL"), self.text("TrustAnchor")

    @property
    def claim(self) -> str:
        found = self.text("ClaimId")
        assert found is not None, self.trail.as_data()
        return found

    @property
    def steps(self) -> list[str]:
        return [mark.step.called for mark in self.trail.marks]

    def note(self, step: str) -> str:
        """What the trail says of a step."""
        return next(mark.note for mark in self.trail.marks if mark.step.called == step)


# --- the delegator ------------------------------------------------------------------------------------------------


@dataclass
class Setup:
    """What an operator sets, as far as the use case sees it."""

    alternates: tuple[str, ...] = ()
    reverse_dns: bool = False
    domain_policy: str | None = None
    domain_anchor: str | None = None
    authority: Authority | None = None
    days: int = 90
    busy_for: float = 11
    url: str = ""
    limits: Limits = field(default_factory=Limits)


class Lab:
    """One delegator with its world. Make it with `running`."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.path = store, path
        self.clock, self.servers, self.dns = Clock(), Servers(), Dns()
        self.metrics = Metrics()
        self.ended: list[tuple[Trail, int]] = []
        self.woken: list[str] = []
        """"deployed" and "issued" wake who tells delegates and administrators, "alarm" the same for a contest."""
        self.breakers: list[tuple[str, str]] = []
        self.alarm = Alarm(store, self.metrics, lambda: self.woken.append("alarm"), "delegator.example")
        self.auditor = Auditor(store, self.clock.now)
        self.answers = Answers()
        self.setup = Setup()
        self.guard = Guard(self.setup.limits, self._breaker_changed, self.clock.seconds)
        self.callbacks = Callbacks(dict.fromkeys(
            (CallbackWay.SOAP, CallbackWay.SSH, CallbackWay.LOCAL), self.servers), self.guard)
        self.teller = Teller(store, self.callbacks, self.clock.seconds)
        self.serve()

    def serve(self, **changes: Any) -> None:
        """Serve from now on with these settings, as after a reload."""
        self.setup = setup = replace(self.setup, **changes)
        self.guard.use(setup.limits)
        naming = Naming("provisioning-delegate", anchor=setup.domain_anchor, policy=setup.domain_policy)
        self.domains = None if not setup.reverse_dns else Domains(
            cast(Resolver, self.dns), lambda name: ".".join(name.split(".")[-2:]), naming, budget=5, most=100,
            clock=self.clock.seconds)
        self.teller.use(self.domains)
        enroller = None if setup.authority is None else Enroller(
            self.store, setup.authority, setup.days, self.clock.now)
        own = Own(setup.busy_for, FACTORY, "delegator.example", setup.alternates)
        heard = Heard(confirmed=lambda: self.woken.append("deployed"), issued=lambda: self.woken.append("issued"),
                      contested=self.alarm.contested)
        self.handshake = Handshake(self.store, self.callbacks, self.clock.now, own, heard, self.domains, enroller)
        self.server = Server(operations(self.handshake), self._record, setup.url, lambda: "here.example:4433",
                             self.answers.begun)

    def _record(self, trail: Trail, level: int) -> None:
        self.ended.append((trail, level))
        logs.record([(trail, level)])
        self.metrics.handshake(trail)
        self.auditor.record(trail)
        self.answers.note(trail)

    def _breaker_changed(self, delegate: str, state: State, why: str) -> None:
        self.breakers.append((delegate, state.value))

    # --- devices ---

    async def post(self, body: bytes, wire: Wire, *, method: str = "POST", target: str = "/",
                   headers: dict[bytes, bytes] | None = None) -> Reply:
        """One call, and the one trail it ends as."""
        before = self.trails(wire)
        response = await self.server.answer(Request(method, target, headers or {}, body, False),
                                            cast(Connection, wire))
        after = self.trails(wire)
        assert len(after) == len(before) + 1, "every call ends as exactly one recorded trail"
        return Reply(response, *after[-1])

    def trails(self, wire: Wire) -> list[tuple[Trail, int]]:
        return [(trail, level) for trail, level in self.ended if trail.connection == wire.id]

    async def ask(self, tag: str, secret: str = SECRET, *, shown: str | None = None, key: str = "", peer: str = PEER,
                  **said: Any) -> Reply:
        """A device asks; it shows its own certificate unless told which, `SHARED` or another tag's; `key` is that of
        another device."""
        return await self.post(asking(tag, secret, **said), Wire(certificate(shown or tag, key=key), peer))

    async def confirm(self, tag: str, claim: str, result: str = "Deployed", *, shown: str | None = None,
                      secret: str | None = None, detail: str | None = None, key: str = "", peer: str = PEER) -> Reply:
        return await self.post(confirming(claim, result, secret, detail),
                               Wire(certificate(shown or tag, key=key), peer))

    async def tell(self) -> None:
        """Delegates are told by the clock, and all that were begun with have been."""
        self.clock.forward(seconds=telling.ROUND)
        await self.teller.look()
        await self.teller.settled()

    async def untold(self) -> list[Claim]:
        """Claims whose delegates have still to hear how they ended."""
        return [claim for name in await self.store.unheard() for claim in await self.store.unnotified(name)]

    # --- operators ---

    async def customer(self, name: str, *, replace: bool = False, **said: Any) -> None:
        await self.store.add_customer(Customer(name, name.title(), **said), today(), replace=replace)

    async def policy(self, name: str, *, replace: bool = False, **said: Any) -> None:
        await self.store.add_policy(Policy(name, **said), today(), replace=replace)

    async def delegate(self, name: str, customer: str = "acme", *, by: str = "soap", replace: bool = False,
                       hosted: dict[str, Any] | None = None, anchor: str | None = None, **said: Any) -> None:
        """A customer's delegate: its server, its command (`ssh`), its program (`local`), or settings kept here."""
        callback = {
            "soap": SoapCallback(f"{name}.example", trust_anchor=anchor),
            "ssh": SshCallback(f"{name}.example", "root", Secret("key"), "host key"),
            "local": LocalCallback("/bin/true"),
            "hosted": HostedCallback("root", Secret("pass of {tag}"), **(hosted or {}))}[by]
        await self.store.add_delegate(Delegate(name, customer, callback, **said), today(), replace=replace)

    async def own(self, *tags: str, customer: str | None = "acme", **said: Any) -> None:
        """Devices are registered to a customer; without one they are in stock."""
        await self.store.add_devices([Registration(customer, tag, **said) for tag in tags], today())

    async def register(self, customer: str | None, **said: Any) -> None:
        await self.store.add_devices([Registration(customer, **said)], today())

    async def rule(self, name: str, delegate: str | None = None, **said: Any) -> None:
        await self.store.add_rule(Rule(name, delegate, **said), today())

    # --- what stands there afterwards ---

    async def claims(self, tag: str) -> list[Claim]:
        """The newest first."""
        return await self.store.claims(service_tag=tag)

    async def claim(self, tag: str) -> Claim:
        """The only one of a tag."""
        (found,) = await self.claims(tag)
        return found

    async def outbox(self) -> list[Notification]:
        return await self.store.outbox.list()

    async def audit(self, **wanted: Any) -> list[Entry]:
        """Rows of the audit, the oldest first, with what waited to be written."""
        self.auditor._recorder._close_windows(self.clock.now())
        await self.auditor._recorder._flush()
        rows = await self.store.audit.list(Wanted(**wanted), 1000)
        return [one.entry for one in sorted(rows, key=lambda one: one.number)]

    async def acts(self, tag: str) -> list[str]:
        """What the audit says of a tag, in order, without what operators did."""
        return [entry.act.value for entry in await self.audit(service_tag=tag) if entry.actor != OPERATOR]

    def counted(self, metric: str, **labels: str) -> float:
        """What a counter stands at."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0

    async def close(self) -> None:
        """What the recorder would still write nobody reads, and it takes its time."""
        await self.alarm.close()
        if self.auditor._recorder._task is not None:
            self.auditor._recorder._task.cancel()
        await self.store.close()

    async def alarmed(self) -> None:
        """Until what the alarm noticed is written down."""
        await self.alarm.close()
        self.alarm._closing.clear()


@asynccontextmanager
async def running(template: Path, folder: Path) -> AsyncIterator[Lab]:
    """A lab on a fresh copy of a database."""
    path = folder / "delegator.db"
    if template.exists():
        path.write_bytes(template.read_bytes())
    store = await open_store(path, SEALING, actor=OPERATOR)
    lab = Lab(store, path)
    try:
        yield lab
    finally:
        await lab.close()
