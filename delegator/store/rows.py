"""Registered values as rows and back: settings and policies as JSON, hosted passwords sealed.

The invariant: what goes in comes out equal, and no secret stands in a column that is not sealed.
Must not live here: SQL statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from delegator.model import (
    WAYS,
    Callback,
    CallbackWay,
    Customer,
    Delegate,
    Policy,
    Registration,
    Rule,
    Secret,
)
from delegator.model.places import lenient
from delegator.sealing import SealingKey
from delegator.store.transaction import Row, Value

_NO_CONDITION = ("name", "delegate", "priority", "delegator")
CONDITIONS = tuple(name for name in Rule.__struct_fields__ if name not in _NO_CONDITION)


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def policy_body(policy: Policy) -> str:
    return msgspec.json.encode(policy).decode()


def policy_of(row: Row) -> Policy:
    try:
        return msgspec.json.decode(str(row[1]), type=Policy)
    except msgspec.ValidationError:
        return _older_policy(msgspec.json.decode(str(row[1])))


def _older_policy(said: dict[str, Any]) -> Policy:
    """Of an older release, whose networks may have bits of a host: who is in them is judged without these."""
    known = [(one, lenient(one)) for one in said.get("networks", ())]
    return msgspec.convert({**said, "networks": [str(found or one) for one, found in known]}, Policy)


def customer_of(row: Row) -> Customer:
    return Customer(str(row[0]), str(row[1]), bool(row[2]), _text(row[3]))


def rule_conditions(rule: Rule) -> str:
    said = {name: getattr(rule, name) for name in CONDITIONS if getattr(rule, name) is not None}
    return msgspec.json.encode(said, order="sorted").decode()


def rule_of(row: Row) -> Rule:
    conditions = msgspec.json.decode(str(row[3]), type=dict[str, str])
    return Rule(str(row[0]), _text(row[1]), int(str(row[2])), delegator=_text(row[4]), **conditions)


REGISTRATION = ("device_id, owner, service_tag, serial_number, model, order_number, delegate, mac_addresses, "
                "customer")
"""Columns of the view `registrations`, as `registration_of` reads them."""


def registration_of(row: Row) -> Registration:
    """A row that begins with REGISTRATION as a value."""
    device_id, owner, tag, serial, model, order, delegate, macs, customer = row[:9]
    return Registration(_text(owner), _text(tag), _text(serial), tuple(str(macs).split(",")) if macs else (),
                        _text(model), _text(order), _text(delegate), int(str(device_id)),
                        owner is not None and customer is None)


def callback_columns(name: str, callback: Callback, key: SealingKey) -> tuple[str, bytes | None]:
    """settings and sealed: every field of type Secret goes into the sealed column, all others into the plain one."""
    values = {name: getattr(callback, name) for name in callback.__struct_fields__}
    secrets = {name: value.reveal() for name, value in values.items() if isinstance(value, Secret)}
    plain = {name: value for name, value in values.items() if value is not None and not isinstance(value, Secret)}
    sealed = key.seal(_json(secrets), f"delegates/{name}") if secrets else None
    return _json(plain), sealed


def _json(values: Mapping[str, object]) -> str:
    return msgspec.json.encode(values, order="sorted").decode()


def callback_of(way: CallbackWay, name: str, settings: str, sealed: Value, key: SealingKey) -> Callback:
    values = msgspec.json.decode(settings)
    if isinstance(sealed, bytes):
        values |= msgspec.json.decode(key.open(sealed, f"delegates/{name}"))
    made: Callback = msgspec.convert(values, WAYS[way], dec_hook=lambda kind, text: kind(text))
    return made


def delegate_of(row: Row, key: SealingKey) -> Delegate:
    """name, customer, kind, settings, sealed, url, trust_anchor, policy, enabled, priority, weight."""
    name = str(row[0])
    callback = callback_of(CallbackWay(row[2]), name, str(row[3]), row[4], key)
    return Delegate(name, str(row[1]), callback, _text(row[5]), _text(row[6]), _text(row[7]), bool(row[8]),
                    int(str(row[9])), int(str(row[10])))
