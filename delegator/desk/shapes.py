"""Values as plain data: what --json prints and tables are made of. Names are those of the options that set them.

The invariant: no password, no sealed credential and no binding ever gets into a shape.
Must not live here: layout (console).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from delegator.model import Claim, Customer, Delegate, Notification, Order, Policy, Registration, Rule
from delegator.model.enrolled import Contest, Enrolled
from delegator.model.owned import Board, Transfer

if TYPE_CHECKING:
    from delegator.model.audited import Entry, Record
    from delegator.model.billed import Correction, Line, Month, Period, Plan, Statement, Total

Shape = dict[str, object]

_UNITS = (("d", timedelta(days=1), 2), ("h", timedelta(hours=1), 1), ("m", timedelta(minutes=1), 1))
"""Largest first, each with the least number of it that is said in it: one day stays 24h, as people say it."""
_TIMES = ("asked_at", "issued_at", "ended_at", "lease_until")


def at(moment: datetime | None) -> str | None:
    """A time as it can be given back: UTC, with its zone."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def lasting(duration: timedelta) -> str:
    """A duration in the largest unit that is exact."""
    for letter, unit, least in _UNITS:
        if not duration % unit and duration >= least * unit:
            return f"{duration // unit}{letter}"
    return f"{round(duration.total_seconds())}s"


def customer(value: Customer) -> Shape:
    return {"name": value.name, "title": value.title, "policy": value.policy, "enabled": value.enabled}


def callback(value: Delegate) -> Shape:
    """How the delegate is reached. Whatever the model calls a Secret is left out, also where there is none."""
    shown = [name for name, kind in type(value.callback).__annotations__.items() if "Secret" not in kind]
    return {"kind": value.way.value, **{name: getattr(value.callback, name) for name in shown}}


def delegate(value: Delegate) -> Shape:
    return {"name": value.name, "customer": value.customer, "callback": callback(value), "url": value.url,
            "trust_anchor": value.trust_anchor, "policy": value.policy, "enabled": value.enabled,
            "priority": value.priority, "weight": value.weight}


def rule(value: Rule) -> Shape:
    return msgspec.structs.asdict(value)


def policy(value: Policy) -> Shape:
    kinds = None if value.callbacks is None else sorted(kind.value for kind in value.callbacks)
    return {"name": value.name, "identity": value.identity.value, "from": at(value.valid_from),
            "until": at(value.valid_until), "approved_only": value.approved_only, "max_devices": value.max_devices,
            "attempts": value.attempts, "lease": lasting(value.lease), "callbacks": kinds,
            "custom_operations": value.custom_operations, "shared_by_domain": value.shared_by_domain,
            "hours": [str(one) for one in value.hours], "networks": list(value.networks),
            "domains": list(value.domains), "own_anywhere": value.own_anywhere,
            "claims_per_hour": value.claims_per_hour}


def registration(value: Registration) -> Shape:
    """As the device's own row says it: what it has by its order is left out, so that importing it changes nothing."""
    own = value.itself
    return {"service_tag": own.service_tag, "serial_number": own.serial_number,
            "mac_addresses": list(own.mac_addresses), "model": own.model, "order": own.order,
            "delegate": own.delegate, "customer": own.customer}


def owned(value: Registration) -> Shape:
    """With whose it is, by itself or by its order; nobody's is in stock."""
    return {**registration(value), "owner": value.customer, "by_order": value.by_order}


def order(value: Order) -> Shape:
    return {"order": value.number, "customer": value.customer, "delegate": value.delegate}


def claim(value: Claim) -> Shape:
    plain: Shape = {name: getattr(value, name) for name in ("claim_id", "service_tag", "customer", "delegate")}
    result = None if value.result is None else value.result.value
    return {**plain, "state": value.state.value, "identity": value.identity.value, "attempt": value.attempt,
            **{name: at(getattr(value, name)) for name in _TIMES},
            "result": result, "detail": value.detail, "peer": value.peer}


def transfer(value: Transfer) -> Shape:
    names = ("transfer_id", "device", "service_tag", "order", "offered_by", "offered_to", "because")
    return {**{name: getattr(value, name) for name in names}, "state": value.state.value,
            **{name: at(getattr(value, name)) for name in ("offered_at", "until", "ended_at")}}


def board(value: Board) -> Shape:
    """A key of a repaired device. The secret that a shared certificate's claim was bound to stays untold, also as a
    hash."""
    kind, _, key = value.binding.partition(":")
    return {"key": key if kind == "key" else None, "standing": value.standing.value, "since": at(value.since),
            "until": at(value.until)}


def enrolled(value: Enrolled) -> Shape:
    """Without what the claim was bound to."""
    state = "forgotten" if value.forgotten_at else "revoked" if value.revoked_at else "used" if value.used else "issued"
    plain: Shape = {name: getattr(value, name) for name in ("service_tag", "serial", "claim_id", "key_fingerprint")}
    times = ("issued_at", "not_after", "used_at", "revoked_at", "forgotten_at")
    return {**plain, "state": state, "reason": value.reason, **{name: at(getattr(value, name)) for name in times},
            "certificate": value.certificate}


def contest(value: Contest) -> Shape:
    names = ("service_tag", "customer", "delegate", "claim_id", "peer", "times")
    return {**{name: getattr(value, name) for name in names}, "identity": value.identity.value, "at": at(value.at)}


def notification(value: Notification) -> Shape:
    facts = {name: value.body.get(name) for name in ("service_tag", "delegator", "peer")}
    return {"kind": value.carrier.value, "notice": value.event, "state": value.state.value,
            "claim_id": value.claim_id, "subject": value.subject, "customer": value.customer,
            "delegate": value.recipient, **facts, "attempts": value.attempts, "last_error": value.last_error,
            "created_at": at(value.at), "give_up_at": at(value.give_up_at), "ended_at": at(value.ended_at)}


# --- the audit ------------------------------------------------------------------------------------------------------


def record(value: Record) -> Shape:
    """A row of the audit."""
    entry = value.entry
    return {"row": value.name, "chain": value.chain, "number": value.number, "at": at(entry.at),
            "until": at(entry.until), "repeated": entry.repeated, "act": entry.act.value, "actor": entry.actor,
            "peer": entry.peer, "outcome": entry.outcome, "service_tag": entry.service_tag,
            "customer": entry.customer, "delegate": entry.delegate, "claim_id": entry.claim_id,
            "reasons": list(entry.reasons), "detail": dict(entry.detail), "hash": value.hash.hex()}


def signature(entry: Entry) -> Shape:
    """What a row of audit holds of a signature, checked here and now with nothing but the row; empty for a row without
    one. It must be of what the row says."""
    from delegator.signing import Signed, fingerprint

    parts = [entry.detail.get(name) for name in ("statement", "signature", "public_key")]
    if not any(parts):
        return {}
    signed = Signed(*map(str, parts))
    holds = signed.holds and signed.says({**entry.detail, "act": entry.act.value})
    return {"signature": "holds" if holds else "does not hold", "statement": signed.statement,
            "key": fingerprint(signed.public_key)[:16] if holds else None}


# --- billing ------------------------------------------------------------------------------------------------------


_LINE = ("customer", "title", "item", "quantity", "confirmed", "included", "billable", "unit_price", "amount",
         "currency", "plan", "plan_version")


def plan(value: Plan) -> Shape:
    """Money as text, so that no reader makes a float of it."""
    return {"name": value.name, "version": value.version, "since": str(value.since), "currency": value.currency,
            "included": value.included, "price": format(value.price, "f"),
            "prices": {way.value: format(price, "f") for way, price in value.prices.items()},
            "base_fee": format(value.base_fee, "f")}


def period(value: Period) -> Shape:
    return {"month": str(value.month), "zone": value.zone, "from": at(value.begins), "until": at(value.ends)}


def closing(stated: Statement | None) -> Shape:
    """When a month was closed, by whom, and the digest of what was stated; nothing of it for one that is open."""
    if stated is None:
        return {"closed_at": None, "closed_by": None, "digest": None}
    return {"closed_at": at(stated.closed_at), "closed_by": stated.closed_by, "digest": stated.digest}


def money(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def line(value: Line) -> Shape:
    """A line of an invoice. Money as text, so that no reader makes a float of it."""
    return {**{name: getattr(value, name) for name in _LINE}, "month": str(value.month),
            "unit_price": money(value.unit_price), "amount": money(value.amount), "correction": False}


def correction(month: Month, one: Correction) -> Shape:
    return {"month": str(month), "customer": one.customer, "item": one.item, "stated": one.stated,
            "counted": one.counted, "quantity": one.counted - one.stated, "amount": money(one.difference),
            "currency": one.currency, "correction": True}


def total(one: Total) -> Shape:
    return {"currency": one.currency, "quantity": one.quantity, "billable": one.billable, "amount": money(one.amount)}
