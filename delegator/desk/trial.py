"""What a changed policy would do to every registered device, worked out before it is saved.

Each device is judged twice, as things are and as they would be, by the very code that serves devices (`judge`,
`over_limits`, `over_pace`) with places, claims and attempts as they stand. It is read a page at a time.
The invariants: a trial changes nothing; a million devices need no more memory than a thousand.
Must not live here: layout and options (the command), rules of any kind.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from delegator.desk.explanation import Counts, Question, Verdict, expired, lapsed, unrouted, verdict
from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Customer, Delegate, Device, IdentityKind, Location, Policy, Registration
from delegator.net.reverse import Domains
from delegator.policy import Pace, paced
from delegator.provisioning.judgement import Judgement, judge
from delegator.routing import Facts, directory
from delegator.store import Candidates, Store, Tables
from delegator.store.surveys import AT_A_TIME, History
from delegator.trail import Trail

_NO_TAG = "00000"
"""What a device without a registered tag is judged as. Its own is not known before it asks, so rules by tag and
approved lists do not match it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A device to judge, with the registrations that share an identifier with it."""

    device: Device
    found: tuple[Registration, ...]
    has_tag: bool = True

    @property
    def name(self) -> str:
        """What a list calls it: its tag, else what is known of it."""
        device = self.device
        return device.service_tag if self.has_tag else device.serial_number or ", ".join(device.mac_addresses)


@dataclass(frozen=True, slots=True)
class Change:
    """The policy as it would be, who would name it besides those that do, and its list, if that is to change too."""

    policy: Policy
    customers: frozenset[str] = frozenset()
    delegates: frozenset[str] = frozenset()
    approved: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What only a real call has: from where, with which certificate, when."""

    peer: str
    identity: IdentityKind
    at: datetime


class Told(enum.Enum):
    """What a device would get. `DONE` is one that was provisioned: no policy changes that."""

    ALLOWED = "allowed"
    LATER = "try later"
    REFUSED = "refused"
    DONE = "provisioned"


class Becomes(enum.Enum):
    """What the change would make of a device."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    OTHERWISE = "refused for other reasons"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Fate:
    """One device, before and after."""

    name: str
    present: Told
    changed: Told
    becomes: Becomes
    present_reasons: tuple[tuple[str, str], ...]
    changed_reasons: tuple[tuple[str, str], ...]
    without_tag: bool = False
    wants: tuple[str, ...] = ()
    """The holders whose places it would take."""


@dataclass(slots=True)
class Tally:
    """The sums of a trial: bounded, however many devices there are."""

    devices: int = 0
    without_tag: int = 0
    present: Counter[Told] = field(default_factory=Counter)
    changed: Counter[Told] = field(default_factory=Counter)
    becomes: Counter[Becomes] = field(default_factory=Counter)
    present_reasons: Counter[str] = field(default_factory=Counter)
    changed_reasons: Counter[str] = field(default_factory=Counter)
    wanting: Counter[str] = field(default_factory=Counter)

    def add(self, fate: Fate) -> None:
        self.devices += 1
        self.without_tag += fate.without_tag
        self.present[fate.present] += 1
        self.changed[fate.changed] += 1
        self.becomes[fate.becomes] += 1
        self.present_reasons.update({why for why, _ in fate.present_reasons})
        self.changed_reasons.update({why for why, _ in fate.changed_reasons})
        self.wanting.update(fate.wants)


class View:
    """What is registered, as `judge` asks for it: the small tables of one moment, and of the device at hand."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.found = Candidates((), frozenset())

    async def about(self, device: Device) -> tuple[Tables, Candidates]:
        return self._tables, self.found


_NOTHING = History()


class Trial:
    """Judges devices before and after. Make it with `prepare`."""

    def __init__(self, store: Store, change: Change, call: Call, domains: Domains | None, tables: Tables,
                 places: dict[str, int]) -> None:
        self._store, self._change, self._call, self._domains = store, change, call, domains
        self._present, self._changed = View(tables), View(after(tables, change))
        self.tables = self._changed._tables
        self.places = places
        self.paces: dict[str, Pace] = {}
        self._lists = tables.lists or change.policy.approved_only

    async def fates(self, page: Sequence[Subject]) -> list[Fate]:
        """What becomes of up to AT_A_TIME devices."""
        histories = await self._store.surveys.histories(
            [one.device.service_tag for one in page if one.has_tag], with_lists=self._lists)
        return [await self._fate(one, histories.get(one.device.service_tag, _NOTHING) if one.has_tag else _NOTHING)
                for one in page]

    async def _fate(self, one: Subject, history: History) -> Fate:
        question = Question(one.device, Location(), self._call.peer, self._call.identity, self._call.at)
        self._present.found = Candidates(one.found, history.approved)
        before, judgement = await self._verdict(self._present, question, history)
        after, later = before, judgement
        if judgement is not None and self._concerns(judgement):
            self._changed.found = Candidates(one.found, self._approved(one.device, history))
            after, later = await self._verdict(self._changed, question, history)
        holds = history.standing is not None and not lapsed(history.standing, self._call.at)
        wants = () if after.error is not None or holds or later is None else tuple(
            applied.holder for applied in later.policies)
        present, changed = _told(before, history), _told(after, history)
        return Fate(one.name, present, changed, _becomes(present, changed, before, after), before.reasons,
                    after.reasons, not one.has_tag, wants)

    def _concerns(self, judgement: Judgement) -> bool:
        """Whether the change can make a difference for a device that was judged so."""
        change, delegate = self._change, judgement.route.delegate
        return (change.policy.name in (judgement.customer.policy, delegate.policy)
                or judgement.customer.name in change.customers or delegate.name in change.delegates)

    def _approved(self, device: Device, history: History) -> frozenset[str]:
        name, listed = self._change.policy.name, self._change.approved
        if listed is None:
            return history.approved
        return history.approved | {name} if device.service_tag in listed else history.approved - {name}

    async def _verdict(self, view: View, question: Question, history: History) -> tuple[Verdict, Judgement | None]:
        facts = Facts(question.device, question.location, question.peer_address)
        try:
            judgement = await judge(view, facts, question.identity, question.at, Trail("trial", facts.peer_address),
                                    self._domains)
        except DelegatorError as error:
            return unrouted(error, question), None
        holders = paced(judgement.policies)
        if not self.paces.keys() >= set(holders):
            self.paces |= await self._store.surveys.paces(holders, question.at)
        counts = Counts(self.places, expired(history, question.at), self.paces)
        return verdict(judgement, counts, history.standing, question), judgement


def after(tables: Tables, change: Change) -> Tables:
    """The small tables as they would be. Raises DelegatorError (NOT_FOUND) for a customer or delegate that is not
    there."""
    name = change.policy.name
    _must_be_there("customer", change.customers - tables.customers.keys())
    _must_be_there("delegate", change.delegates - tables.directory.delegates.keys())
    customers: dict[str, Customer] = {
        key: msgspec.structs.replace(one, policy=name) if key in change.customers else one
        for key, one in tables.customers.items()}
    delegates: list[Delegate] = [
        msgspec.structs.replace(one, policy=name) if one.name in change.delegates else one
        for one in tables.directory.delegates.values()]
    return msgspec.structs.replace(tables, customers=customers, policies={**tables.policies, name: change.policy},
                               directory=directory(delegates, tables.directory.rules))


def _must_be_there(noun: str, missing: Iterable[str]) -> None:
    for name in sorted(missing):
        raise DelegatorError(Kind.NOT_FOUND, f"there is no {noun} named {name}", hint=f"see: delegator {noun}s list")


def _told(found: Verdict, history: History) -> Told:
    if found.error is None:
        return Told.ALLOWED
    standing = history.standing
    if standing is not None and standing.state is ClaimState.CONFIRMED and found.reasons[0][0] == "claim":
        return Told.DONE
    return Told.LATER if found.error.kind is Kind.TRY_LATER else Told.REFUSED


def _becomes(present: Told, changed: Told, before: Verdict, after: Verdict) -> Becomes:
    allowed = present is Told.ALLOWED, changed is Told.ALLOWED
    if allowed[0] != allowed[1]:
        return Becomes.ALLOWED if allowed[1] else Becomes.REFUSED
    whys = [[why for why, _ in one.reasons] for one in (before, after)]
    return Becomes.UNCHANGED if present is changed and whys[0] == whys[1] else Becomes.OTHERWISE


async def prepare(store: Store, change: Change, call: Call, domains: Domains | None) -> Trial:
    """Read what is the same for all devices."""
    return Trial(store, change, call, domains, await store.tables(), await store.surveys.places(call.at))


async def registered_pages(store: Store) -> AsyncIterator[list[Subject]]:
    """Every registered device as it would say what it is registered with, a page at a time."""
    page: list[Subject] = []
    async for one in store.devices():
        page.append(Subject(_device(one.service_tag or _NO_TAG, one), (one,), one.service_tag is not None))
        if len(page) == AT_A_TIME:
            yield page
            page = []
    if page:
        yield page


async def pages_of(store: Store, tags: Sequence[str]) -> AsyncIterator[list[Subject]]:
    """The devices of a list, registered or not, a page at a time."""
    for start in range(0, len(tags), AT_A_TIME):
        yield [await _subject(store, tag) for tag in tags[start:start + AT_A_TIME]]


async def _subject(store: Store, tag: str) -> Subject:
    found = (await store.find(Device(tag), lists=False)).registrations
    return Subject(_device(tag, found[0]) if found else Device(tag), found)


def _device(tag: str, one: Registration) -> Device:
    return Device(tag, one.serial_number, one.mac_addresses, one.model)
