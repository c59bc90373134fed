"""`delegator enrolments`: certificates of their own that devices with the shared one were given here.

The invariant: a certificate is public and is shown; what a claim was bound to is not.
Must not live here: what revoking and forgetting mean (store.enrolled), the revocation list (pki).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click
import msgspec

from delegator.cli import changing, console, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, shapes
from delegator.errors import Missing
from delegator.model.audited import By
from delegator.model.enrolled import Enrolled
from delegator.store import Store
from pki import Reason

_COLUMNS = ("service_tag", "serial", "state", "issued_at", "not_after", "claim_id")
_STATES = ("issued", "used", "revoked", "forgotten")
_LEDGER = "put it on the list of all delegators with: delegator enrolments export | python -m pki adopt -"


@click.group("enrolments", cls=console.Verbs, epilog=console.as_example("delegator enrolments show ABC1234"))
def group() -> None:
    """Certificates given to devices that came with the shared one."""


@verb(group, "list", "delegator enrolments list --state revoked")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--tag", type=typed(forms.tag), help="Only those of this device.")
@listing.most()
@looking
async def list_(store: Store, state: str | None, tag: str | None, most: int) -> Output:
    """List enrolments by serial number: issued, used (the device has shown it), revoked, forgotten."""
    async def shaped() -> AsyncIterator[shapes.Shape]:
        for one in [] if tag is None else await store.enrolments.of_tag(tag):
            yield shapes.enrolled(one)
        if tag is None:
            async for one in _all(store):
                yield shapes.enrolled(one)
    found = await listing.first((one async for one in shaped() if state in (None, one["state"])), most)
    return await listing.shown(store, "enrolments", found, _COLUMNS, most, {"device": tag})


async def _all(store: Store) -> AsyncIterator[Enrolled]:
    after = ""
    while found := await store.enrolments.page(after):
        for one in found:
            yield one
        after = found[-1].serial


@verb(group, "show", "delegator enrolments show ABC1234")
@click.argument("tag", type=typed(forms.tag))
@looking
async def show(store: Store, tag: str) -> Output:
    """Show every certificate that the device TAG was given here, the newest first."""
    found = [shapes.enrolled(one) for one in await store.enrolments.of_tag(tag)]
    if not found:
        raise Missing("device", tag, f"no certificate was issued to {tag} here",
                      hint="see: delegator enrolments list")
    lines = [line for one in found for line in (*console.pairs(one), "")]
    return Output(found, lines[:-1])


_because = click.option("--because", type=typed(forms.words), help="Why, in words, for the audit.")
_reason = click.option("--reason", type=click.Choice([reason.value for reason in Reason]), default="unspecified",
                       show_default=True, help="As it will stand in the revocation list.")


def _by(store: Store, because: str | None) -> By:
    return msgspec.structs.replace(store.by, because=because, detail={"because": because} if because else {})


@verb(group, "revoke", "delegator enrolments revoke ABC1234 --reason keyCompromise --because 'ticket 815'")
@click.argument("tag", type=typed(forms.tag))
@_reason
@_because
@stored
async def revoke(store: Store, tag: str, reason: str, because: str | None) -> Output:
    """Revoke the certificate of the device TAG; the shared one stays refused.

    Delegators on this store refuse it within seconds; others once it is on their revocation list.
    """
    gone = await store.enrolments.revoke(tag, reason, datetime.now(UTC), _by(store, because))
    return Output(shapes.enrolled(gone), words=(f"{tag}: serial {gone.serial} is revoked", _LEDGER))


@verb(group, "forget", "delegator enrolments forget ABC1234 --because 'main board replaced'")
@click.argument("tag", type=typed(forms.tag))
@_reason
@_because
@stored
async def forget(store: Store, tag: str, reason: str, because: str | None) -> Output:
    """Revoke the certificate of the device TAG, and let it come with the shared one again.

    For a device that lost its key, or got a new main board. A claim that stands is released separately: delegator
    claims release TAG.
    """
    gone = await store.enrolments.forget(tag, reason, datetime.now(UTC), _by(store, because))
    output = Output(shapes.enrolled(gone), words=(
        f"{tag}: serial {gone.serial} is revoked, and the shared certificate may claim the tag again", _LEDGER))
    return changing.plainly(output, [f"{tag}: the shared certificate was refused and may claim it now, where its "
                                     "owner's policy allows that one"])


@verb(group, "export", "delegator enrolments export > enrolled.jsonl")
@looking
async def export(store: Store) -> Output:
    """Write all enrolments as JSON lines, for the ledger of the authority: python -m pki adopt."""
    found = [_entry(one) async for one in _all(store)]
    return Output(found, (json.dumps(one) for one in found))


def _entry(one: Enrolled) -> shapes.Shape:
    return {"certificate": one.certificate, "issued": shapes.at(one.issued_at), "revoked": shapes.at(one.revoked_at),
            "reason": one.reason}
