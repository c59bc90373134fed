"""Registered values as rows and back: settings and policies as JSON, hosted passwords sealed.

The invariant: what goes in comes out equal, and no secret stands in a column that is not sealed.
Must not live here: SQL statements.
"""

from __future__ import annotations

from dataclasses import fields

import msgspec

from delegator.model import (
    CALLBACK_KINDS,
    Callback,
    CallbackKind,
    Customer,
    Delegate,
    HostedCallback,
    Policy,
    Registration,
    Rule,
    Secret,
    SoapCallback,
)
from delegator.sealing import SealingKey
from delegator.store.transaction import Row, Value

CONDITIONS = tuple(field.name for field in fields(Rule) if field.name not in ("name", "delegate", "priority"))


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def policy_body(policy: Policy) -> str:
    return msgspec.json.encode(policy).decode()


def policy_of(row: Row) -> Policy:
    return msgspec.json.decode(str(row[1]), type=Policy)


def customer_of(row: Row) -> Customer:
    return Customer(str(row[0]), str(row[1]), bool(row[2]), _text(row[3]))


def rule_conditions(rule: Rule) -> str:
    said = {name: getattr(rule, name) for name in CONDITIONS if getattr(rule, name) is not None}
    return msgspec.json.encode(said, order="sorted").decode()


def rule_of(row: Row) -> Rule:
    return Rule(str(row[0]), str(row[1]), int(str(row[2])), **msgspec.json.decode(str(row[3]), type=dict[str, str]))


def registration_of(row: Row) -> Registration:
    """device_id, customer, service_tag, serial_number, model, order_number, delegate, MACs joined by commas."""
    macs = tuple(str(row[7]).split(",")) if row[7] else ()
    return Registration(str(row[1]), _text(row[2]), _text(row[3]), macs, _text(row[4]), _text(row[5]),
                        _text(row[6]), int(str(row[0])))


def callback_columns(name: str, callback: Callback, key: SealingKey) -> tuple[str, str, bytes | None]:
    """kind, settings, sealed."""
    kind = CALLBACK_KINDS[type(callback)].value
    if isinstance(callback, HostedCallback):
        settings: object = {"user_name": callback.user_name}
        return kind, msgspec.json.encode(settings).decode(), key.seal(callback.password.reveal(), f"delegates/{name}")
    return kind, msgspec.json.encode(callback).decode(), None


def _hosted(name: str, settings: str, sealed: Value, key: SealingKey) -> Callback:
    assert isinstance(sealed, bytes)
    plain = msgspec.json.decode(settings, type=dict[str, str])
    return HostedCallback(plain["user_name"], Secret(key.open(sealed, f"delegates/{name}")))


def _soap(name: str, settings: str, sealed: Value, key: SealingKey) -> Callback:
    return msgspec.json.decode(settings, type=SoapCallback)


_READERS = {CallbackKind.HOSTED: _hosted, CallbackKind.SOAP: _soap}


def delegate_of(row: Row, key: SealingKey) -> Delegate:
    """name, customer, kind, settings, sealed, url, trust_anchor, policy, enabled."""
    name = str(row[0])
    callback = _READERS[CallbackKind(row[2])](name, str(row[3]), row[4], key)
    return Delegate(name, str(row[1]), callback, _text(row[5]), _text(row[6]), _text(row[7]), bool(row[8]))
