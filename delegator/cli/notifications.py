"""`delegator notifications`: who was told of what, by mail or webhook, and trying again.

The invariant: there is no secret in the outbox, so none can be shown.
Must not live here: sending (notify; a running delegator does it), the outbox (store.outbox).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from delegator.cli import console, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, shapes
from delegator.model import NotificationState
from delegator.store import Store

_COLUMNS = ("created_at", "kind", "service_tag", "customer", "delegate", "state", "attempts", "last_error", "claim_id")


@click.group("notifications", cls=console.Verbs,
             epilog=console.as_example("delegator notifications list --state 'given up'"))
def group() -> None:
    """Who was told of what, by mail or webhook."""


@verb(group, "list", "delegator notifications list --customer acme --state waiting")
@click.option("--customer", type=typed(forms.name), help="Only those of this customer.")
@click.option("--state", type=click.Choice([state.value for state in NotificationState]),
              help="Only those in this state.")
@click.option("--delegate", type=typed(forms.name), help="Only those of this delegate.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, state: str | None, delegate: str | None, most: int) -> Output:
    """List notifications, newest first; what was sent or given up is kept for 30 days."""
    found = await store.outbox.list(customer=customer, state=None if state is None else NotificationState(state),
                                    delegate=delegate, most=most + 1)
    return await listing.shown(store, "notifications", [shapes.notification(one) for one in found], _COLUMNS, most,
                               {"customer": customer, "delegate": delegate})


@verb(group, "retry", "delegator notifications retry --delegate acme-small")
@click.option("--claim", "claim_id", type=typed(forms.claim_id), help="Only those of this claim.")
@click.option("--delegate", type=typed(forms.name), help="Only those of this delegate.")
@stored
async def retry(store: Store, claim_id: str | None, delegate: str | None) -> Output:
    """Try again now what waits or was given up, all of it unless told otherwise.

    A running delegator sends it within seconds. What was sent is not sent again.
    """
    count = await store.outbox.retry(datetime.now(UTC), claim_id=claim_id, delegate=delegate)
    return Output({"retried": count}, words=(f"{count} notifications are tried again",))
