"""What a rule means that asks nothing of a device: it lets every stranger of the factory in, so it is made on purpose.

The invariant: the meaning is worked out with the gate that devices go through, and is told before such a rule is kept.
Must not live here: matching (routing), what a change of a rule lets in (widening).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import IdentityRule, Rule
from delegator.routing import catches_all
from delegator.store import Store
from delegator.widening import Gate, gate

DAYS = 30
"""How far back strangers are counted."""


async def must_be_meant(store: Store, rule: Rule, now: datetime, *, said: bool) -> tuple[str, ...]:
    """What a rule means that asks nothing; () for any other. Raises DelegatorError (CONFLICT) where it is not said that
    it is meant."""
    if not catches_all(rule):
        return ()
    tables = await store.tables()
    name = rule.delegate or ""
    delegate = tables.directory.delegates.get(name)
    if delegate is None:
        raise Missing("delegate", name, f"there is no delegate named {name}", hint="see: delegator delegates list")
    meaning = await _meaning(store, gate(tables, delegate), now)
    if said:
        return (meaning,)
    raise DelegatorError(Kind.CONFLICT, f"rule {rule.name} asks nothing of a device. {meaning}",
                         hint="register the devices (delegator devices add), or give the rule a condition, such as "
                              "--tag-prefix or --network; if you mean it: --any-genuine-device")


async def _meaning(store: Store, way: Gate, now: datetime) -> str:
    """Exactly what becomes of strangers: by their own certificate as the policy allows, never by the shared one, which
    needs a device that is registered by its tag (policy._standing)."""
    many = await store.audit.strangers(now - timedelta(days=DAYS))
    who = f"a credential of customer {way.customer.name}, by delegate {way.delegate.name}"
    refused = any(one.policy.identity is IdentityRule.SHARED for one in way.policies)
    given = (f"no device with a certificate of its own is given {who}: the policy wants the shared one" if refused else
             f"any device with a certificate of its own from the factory that nobody has registered is given {who}, as "
             f"far as this allows: {way.asks}")
    return (f"It means: {given}; one that shows the shared certificate is given nothing until its tag is registered. "
            f"In the last {DAYS} days {many} devices asked that nobody has registered and no rule led anywhere.")


def stays(rule: Rule, fields: Mapping[str, Any]) -> bool:
    """Whether a rule that is changed asked nothing before either, and leads where it led."""
    return catches_all(rule) and rule.delegate == fields.get("delegate", rule.delegate)


def changed(rule: Rule, after: Rule, fields: Mapping[str, Any], *, meant: bool) -> Rule:
    """The rule as it is to be, within the transaction that keeps it. Raises DelegatorError (CONFLICT) where it asks
    nothing by then, and that was not said."""
    if catches_all(after) and not (meant or stays(rule, fields)):
        raise DelegatorError(Kind.CONFLICT, f"rule {rule.name} was changed meanwhile", hint="look, and run it again")
    return after
