"""`delegator claims`: what devices asked for, and what became of it.

The invariant: neither the credential of a claim nor what it is bound to is ever shown.
Must not live here: the life of a claim (store.claims).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from delegator.cli import changing, console, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, shapes
from delegator.desk.lately import passed_over
from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import ClaimState
from delegator.model.audited import Act
from delegator.store import Store
from delegator.store.audit.inspection import Wanted

_COLUMNS = ("claim_id", "service_tag", "customer", "delegate", "state", "attempt", "asked_at", "peer")


@click.group("claims", cls=console.Verbs, epilog=console.as_example("delegator claims list --state issued"))
def group() -> None:
    """What devices asked for, and what became of it."""


@verb(group, "list", "delegator claims list --customer acme --state issued")
@click.option("--customer", type=typed(forms.owner), help="Only those of this customer, or domain:<domain>.")
@click.option("--delegate", type=typed(forms.owner), help="Only those of this delegate.")
@click.option("--tag", type=typed(forms.tag), help="Only those of this device.")
@click.option("--state", type=click.Choice([state.value for state in ClaimState]), help="Only those in this state.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, delegate: str | None, tag: str | None, state: str | None,
                most: int) -> Output:
    """List claims, newest first."""
    found = await store.claims(customer=customer, service_tag=tag, delegate=delegate,
                               state=None if state is None else ClaimState(state), most=most + 1)
    return await listing.shown(store, "claims", [shapes.claim(one) for one in found], _COLUMNS, most,
                               {"customer": customer, "delegate": delegate, "device": tag})


@verb(group, "show", "delegator claims show 0f3c7a1b2d4e5f60718293a4b5c6d7e8")
@click.argument("claim_id", type=typed(forms.claim_id))
@looking
async def show(store: Store, claim_id: str) -> Output:
    """Show the claim CLAIM_ID, without its credential; where a delegate stood in for others, why they gave nothing."""
    found = await store.claim(claim_id)
    if found is None:
        raise DelegatorError(Kind.NOT_FOUND, f"there is no claim {claim_id}", hint="see: delegator claims list")
    issued = await store.audit.list(Wanted(claim_id=claim_id, act=Act.CLAIM_ISSUED.value), 1)
    data = {**shapes.claim(found), "passed_over": [why for one in issued for why in passed_over(one)]}
    return Output(data, console.pairs(data))


@verb(group, "contested", "delegator claims contested --customer acme")
@click.option("--customer", type=typed(forms.owner), help="Only those of this customer, or domain:<domain>.")
@click.option("--tag", type=typed(forms.tag), help="Only those of this device.")
@listing.most()
@looking
async def contested(store: Store, customer: str | None, tag: str | None, most: int) -> Output:
    """List second claimants: who asked for a device that another holds, by tag and day, the latest first."""
    found = await store.contests.list(customer=customer, tag=tag, most=most + 1)
    columns = ("service_tag", "identity", "times", "at", "peer", "customer", "claim_id")
    return await listing.shown(store, "second claimants", [shapes.contest(one) for one in found], columns, most,
                               {"customer": customer, "device": tag})


@verb(group, "release", "delegator claims release ABC1234 --because 'factory reset, ticket 815'")
@click.argument("tag", type=typed(forms.tag))
@click.option("--because", type=typed(forms.words), help="The reason, for the audit.")
@stored
async def release(store: Store, tag: str, because: str | None) -> Output:
    """Release what the device TAG holds and forget its attempts, so that it can be provisioned anew.

    For the same customer, as after a factory reset. A device that nobody shall own any more: delegator devices
    return. A new main board: delegator devices repair.
    """
    if not await store.claims(service_tag=tag, most=1):
        raise Missing("device", tag, f"{tag} has no claim", hint="see: delegator claims list")
    changed = len(await store.ownership.release(tag, datetime.now(UTC), because))
    output = Output({"service_tag": tag, "released": changed}, words=(f"{changed} claims of {tag} were released",))
    return changing.plainly(output, [f"{tag} may be claimed anew, by any key that its owner's policy allows"]
                         if changed else [])
