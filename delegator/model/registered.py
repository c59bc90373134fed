"""What is registered: customers, their delegates and devices, rules and policies.

The invariant: what is not said is the safe choice.
Must not live here: how any of it is kept (store), what follows from it (routing, policy).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import force_setattr, replace

from delegator.model.hours import Opening
from delegator.model.places import HOST_NAME, normal_delegator, normal_name, normal_network, normalise
from delegator.model.syntax import check_identifiers, must_match, normal_macs
from delegator.model.ways import Callback, CallbackWay
from delegator.model.word import Word


def _normal_domain(text: str) -> str:
    """Raises ValueError."""
    must_match(HOST_NAME, text.removesuffix("."), "domain")
    return normal_name(text)


class Customer(msgspec.Struct, frozen=True):
    name: str
    title: str
    enabled: bool = True
    policy: str | None = None


class Delegate(msgspec.Struct, frozen=True):
    """The customer's provisioning server, or what stands for it. `url` and `trust_anchor` go to the device. Among a
    customer's delegates the lowest `priority` is asked first; among equals `weight` shares the devices out."""

    name: str
    customer: str
    callback: Callback
    url: str | None = None
    trust_anchor: str | None = None
    policy: str | None = None
    enabled: bool = True
    priority: int = 100
    weight: int = 1

    @property
    def way(self) -> CallbackWay:
        return self.callback.way


class Order(msgspec.Struct, frozen=True):
    """What was sold: everything with this order number belongs to this customer, unless a device's own registration
    names its customer."""

    number: str
    customer: str
    delegate: str | None = None


class Registration(msgspec.Struct, frozen=True):
    """A device known by any of its identifiers, and the customer that owns it: None while it is in stock. `by_order`:
    customer and delegate are those of its order. Raises ValueError."""

    customer: str | None
    service_tag: str | None = None
    serial_number: str | None = None
    mac_addresses: tuple[str, ...] = ()
    model: str | None = None
    order: str | None = None
    delegate: str | None = None
    device_id: int = 0
    by_order: bool = False

    def __post_init__(self) -> None:
        check_identifiers(self.service_tag, self.serial_number, self.model)
        if self.mac_addresses:
            force_setattr(self, "mac_addresses", normal_macs(self.mac_addresses))
        if self.customer is None and self.delegate is not None:
            raise ValueError("a device in stock can name no delegate")

    @property
    def itself(self) -> Registration:
        """As the device's own row says it, without what its order says."""
        return replace(self, customer=None, delegate=None, by_order=False) if self.by_order else self


class Rule(msgspec.Struct, frozen=True):
    """Facts that lead to a delegate, or (as `delegator`, HOST[:PORT]) to another delegator that a device shall ask
    instead. Lower priority is tried first; a rule without conditions is the default."""

    name: str
    delegate: str | None = None
    priority: int = 100
    model: str | None = None
    tag_prefix: str | None = None
    mac_prefix: str | None = None
    network: str | None = None
    domain: str | None = None
    order: str | None = None
    delegator: str | None = None

    def __post_init__(self) -> None:
        if (self.delegate is None) == (self.delegator is None):
            raise ValueError(f"rule {self.name} must name a delegate or another delegator, and not both")
        normalise(self, network=normal_network, domain=normal_name, mac_prefix=str.upper, delegator=normal_delegator)


class IdentityRule(Word):
    """Which proof of identity a policy accepts."""

    OWN = "own"
    SHARED = "shared"
    EITHER = "either"


class Policy(msgspec.Struct, frozen=True):
    """What a customer allows. Every field is optional; what is not said is the safe choice. Raises ValueError."""

    name: str = "default"
    custom_operations: bool = True
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    identity: IdentityRule = IdentityRule.OWN
    approved_only: bool = False
    max_devices: int | None = None
    callbacks: frozenset[CallbackWay] | None = None
    attempts: int = 10
    lease: timedelta = timedelta(hours=24)
    shared_by_domain: bool = False
    """Whether a shared certificate is enough where nothing but reverse DNS led to the customer."""
    hours: tuple[Opening, ...] = ()
    """Open when any of them is; always when there is none."""
    networks: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    """Where devices may call from: an address in one of the networks, or one whose forward-confirmed name is in one of
    the domains; anywhere when there is neither."""
    own_anywhere: bool = False
    """Whether a device with its own certificate may call from anywhere: networks and domains bind only shared ones."""
    claims_per_hour: int | None = None

    def __post_init__(self) -> None:
        if any(moment is not None and moment.tzinfo is None for moment in (self.valid_from, self.valid_until)):
            raise ValueError("a policy's window needs a time zone")
        if self.claims_per_hour is not None and self.claims_per_hour < 1:
            raise ValueError("claims per hour must be at least 1; to allow none, set custom_operations to false")
        if self.networks:
            force_setattr(self, "networks", tuple(dict.fromkeys(map(normal_network, self.networks))))
        if self.domains:
            force_setattr(self, "domains", tuple(dict.fromkeys(map(_normal_domain, self.domains))))
