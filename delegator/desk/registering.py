"""Customers, devices, orders and rules as people say them: their fields, and which of them go together.

The invariants: a device has an identifier that somebody can find it by, and is somebody's or in an order; a rule leads
to one place; what is registered stays what it is: a tag that a certificate proves is never changed.
Must not live here: rows of files (rows), how any of it is kept (store), a rule that asks nothing (strangers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from delegator.desk import forms
from delegator.desk.refusals import Clash
from delegator.desk.sheets import Field, Range, Sheet, many, switch, text
from delegator.errors import DelegatorError, Kind
from delegator.model import Customer, Order, Registration, Rule
from delegator.routing import catches_all

PRIORITY = Range(0, 1_000_000)
"""Of rules and delegates: lower is first."""
WEIGHT = Range(1, 1_000_000)
_MEANT = "any_genuine_device"


def device(fields: Mapping[str, Any]) -> Registration:
    """Raises ValueError."""
    one = {name: value for name, value in fields.items() if value is not None}
    macs = tuple(dict.fromkeys(one.pop("mac_addresses", ())))
    if not (one.get("service_tag") or one.get("serial_number") or macs):
        raise Clash("say which device: {service_tag}, {serial_number} or {mac_addresses}", at="service_tag")
    if "customer" not in one and ("order" not in one or "delegate" in one):
        raise Clash("say whose it is with {customer}, or {order} alone for a device in stock", at="customer")
    return Registration(one.pop("customer", None), mac_addresses=macs, **one)


def device_changed(one: Registration, fields: Mapping[str, Any]) -> Registration:
    """A device that is registered, with other fields. Raises DelegatorError (CONFLICT) for what cannot be."""
    tag = fields.get("service_tag")
    if tag is not None and one.service_tag not in (None, tag):
        raise DelegatorError(Kind.CONFLICT, f"that device has the service tag {one.service_tag}, which its certificate "
                             "proves", hint="remove it and register the other one")
    try:
        after = replace(one, **fields)
    except ValueError as error:
        raise DelegatorError(Kind.CONFLICT, str(error), hint="say whose it is with --customer") from None
    if not (after.service_tag or after.serial_number or after.mac_addresses):
        raise DelegatorError(Kind.CONFLICT, "a device needs a service tag, a serial number or a MAC address",
                             hint="to take it off the register: delegator devices remove")
    if after.customer is None and after.order is None:
        raise DelegatorError(Kind.CONFLICT, "a device that names no customer needs its order",
                             hint="to take it back to stock: delegator devices return")
    return after


def rule(fields: Mapping[str, Any]) -> Rule:
    """Raises ValueError. One that asks nothing must be said to be meant; what it means tells desk.strangers."""
    leads_once(fields, new=True)
    made = Rule(**{name: value for name, value in fields.items() if name != _MEANT})
    if catches_all(made) and not fields.get(_MEANT):
        raise Clash(f"rule {made.name} asks nothing of a device; say {{{_MEANT}}} if that is meant", at=_MEANT)
    return made


def leads_once(fields: Mapping[str, Any], *, new: bool) -> None:
    """Raises Clash for a rule that is to lead to two places, and for a `new` one that is to lead nowhere."""
    said = [name for name in ("delegate", "delegator") if fields.get(name) is not None]
    if len(said) > 1 or (new and not said):
        raise Clash("name either {delegate} or {delegator}", at="delegate")


CUSTOMER: Sheet[Customer] = Sheet("customer", {
    "name": Field("name", text(forms.name)), "title": Field("title", text(forms.words)),
    "policy": Field("policy", text(forms.name), empty=True), "enabled": Field("enabled", switch),
}, lambda fields: Customer(**fields), frozenset({"name", "title"}))
DEVICE: Sheet[Registration] = Sheet("device", {
    "service_tag": Field("service_tag", text(forms.tag), empty=True),
    "serial_number": Field("serial_number", text(forms.own_serial), empty=True),
    "mac_addresses": Field("mac_addresses", many(forms.own_mac)),
    "model": Field("model", text(forms.model_name), empty=True),
    "order": Field("order", text(forms.words), empty=True), "delegate": Field("delegate", text(forms.name), empty=True),
    "customer": Field("customer", text(forms.name), empty=True),
}, device)
ORDER: Sheet[Order] = Sheet("order", {
    "order": Field("number", text(forms.words)), "customer": Field("customer", text(forms.name)),
    "delegate": Field("delegate", text(forms.name), empty=True),
}, lambda fields: Order(**fields), frozenset({"order", "customer"}))
RULE: Sheet[Rule] = Sheet("rule", {
    "name": Field("name", text(forms.name)), "delegate": Field("delegate", text(forms.name), empty=True),
    "delegator": Field("delegator", text(forms.delegator), empty=True), "priority": Field("priority", PRIORITY),
    "model": Field("model", text(forms.model_name), empty=True),
    "tag_prefix": Field("tag_prefix", text(forms.tag_prefix), empty=True),
    "mac_prefix": Field("mac_prefix", text(forms.mac_prefix), empty=True),
    "network": Field("network", text(forms.network), empty=True),
    "domain": Field("domain", text(forms.domain), empty=True), "order": Field("order", text(forms.words), empty=True),
    _MEANT: Field(_MEANT, switch),
}, rule, frozenset({"name"}))
