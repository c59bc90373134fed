"""`delegator transfers`: a device changes hands, offered by one customer and accepted by the other.

The invariants: many devices go in one step or not at all; nothing is signed that is not what `statement` prints.
Must not live here: what a step means (store.transfers), which files sign (owning).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from delegator.cli import changing, console, listing, owning
from delegator.cli.console import Output, verb
from delegator.cli.owning import several, signing
from delegator.cli.parameters import as_usage, typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, ownership, shapes
from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Entry
from delegator.model.owned import Transfer, TransferState
from delegator.store import Store
from delegator.store.transfers import Side

_COLUMNS = ("transfer_id", "device", "offered_by", "offered_to", "state", "offered_at", "until", "order")
_STEPS = {"offer": TransferState.OFFERED, "accept": TransferState.ACCEPTED, "decline": TransferState.DECLINED,
          "withdraw": TransferState.WITHDRAWN}
_order = click.option("--order", type=typed(forms.words), help="All devices of this order.")
_because = click.option("--because", type=typed(forms.words), help="The reason, for the audit.")


@click.group("transfers", cls=console.Verbs, epilog=console.as_example("delegator transfers offer ABC1234 --to globex"))
def group() -> None:
    """Devices that change hands: offered by their owner, accepted by another customer."""


def _as(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--as", "customer", type=typed(forms.name), required=True, help=f"The customer that {what}.")


# --- steps --------------------------------------------------------------------------------------------------------


@verb(group, "offer", "delegator transfers offer ABC1234 --to globex --sign-with acme.key\n"
                      "delegator transfers offer --order 4711 --as acme --to globex --until 2027-01-31")
@several
@_order
@click.option("--as", "customer", type=typed(forms.name), help="Their owner; needed with --order.")
@click.option("--to", type=typed(forms.name), required=True, help="The customer that may accept them.")
@click.option("--until", type=typed(forms.moment),
              help=f"When the offer ends; {ownership.DAYS} days from now unless told otherwise.")
@_because
@signing
def offer(names: tuple[str, ...], listed: Path | None, order: str | None, customer: str | None,
          **how: Any) -> Output | None:
    """Offer devices to another customer. Until it accepts, nothing changes."""
    found = owning.chosen(names, listed)
    if (order is None) is (not found):
        raise click.UsageError("say which devices: DEVICE, --devices or --order")
    if order is not None and customer is None:
        raise click.UsageError("with --order say whose: --as CUSTOMER")
    return _offer(found=found, order=order, customer=customer, **how)


@stored
async def _offer(store: Store, found: list[str], order: str | None, customer: str | None, to: str,
                 until: datetime | None, because: str | None, **signing: Path | None) -> Output:
    now = datetime.now(UTC)
    with as_usage():
        until = ownership.ends(until, now)
    if order is not None and customer is not None:
        found = owning.at_most(await store.ownership.in_order(order, customer))
        if not found:
            await listing.must_know(store, {"customer": customer, "order": order})
            raise DelegatorError(Kind.NOT_FOUND, f"no device of order {order} is {customer}'s",
                                 hint=f"see: delegator devices list --order {order}")
    progress = console.Progress(len(found), "devices")
    sign = owning.signed_by(len(found), **signing)
    made = await store.ownership.offer(((name, ownership.number(now)) for name in found), to, until, now,
                                       Side(customer, sign, because), told=progress.step)
    progress.finish()
    return _told(made, f"offered to {to} until {shapes.at(until)}")


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    """What accept, decline and withdraw have in common."""
    return several(_order(_because(signing(function))))


_EXAMPLE = ("delegator transfers {0} ABC1234 --as {1}\n"
            "delegator transfers {0} --order 4711 --as {1} --sign-with {1}.key")


@verb(group, "accept", _EXAMPLE.format("accept", "globex"))
@_step
@_as("takes them")
@click.option("--delegate", type=typed(forms.name), help="The delegate they shall have; else rules choose.")
def accept(**how: Any) -> Output | None:
    """Take devices that were offered: they are this customer's from now on.

    In one step the registration moves, the old owner's credential is wiped and the claim released.
    """
    return _ended("accept", **how)


@verb(group, "decline", _EXAMPLE.format("decline", "globex"))
@_step
@_as("does not take them")
def decline(**how: Any) -> Output | None:
    """Refuse devices that were offered; they stay their owner's."""
    return _ended("decline", **how)


@verb(group, "withdraw", _EXAMPLE.format("withdraw", "acme"))
@_step
@_as("offered them")
def withdraw(**how: Any) -> Output | None:
    """Take an offer back; the devices stay their owner's."""
    return _ended("withdraw", **how)


def _ended(step: str, names: tuple[str, ...], listed: Path | None, order: str | None, **how: Any) -> Output | None:
    found = owning.chosen(names, listed)
    if (order is None) is (not found):
        raise click.UsageError("say which: DEVICE or the transfer's number, --devices or --order")
    return _end(to=_STEPS[step], found=found, order=order, **how)


@stored
async def _end(store: Store, to: TransferState, found: list[str], order: str | None, customer: str,
               because: str | None, delegate: str | None = None, **signing: Path | None) -> Output:
    if order is not None:
        open_ones = await store.ownership.transfers(customer=customer, state=TransferState.OFFERED, order=order,
                                                    most=ownership.MOST + 1)
        found = owning.at_most([one.transfer_id for one in open_ones if one.whose(to) == customer])
        if not found:
            await listing.must_know(store, {"customer": customer})
            raise DelegatorError(Kind.NOT_FOUND, f"nothing of order {order} is offered that {customer} could end so",
                                 hint=f"see: delegator transfers list --order {order}")
    sign = owning.signed_by(len(found), **signing)
    progress = console.Progress(len(found), "devices")
    ended = await store.ownership.end(to, found, datetime.now(UTC), Side(customer, sign, because),
                                      delegate=delegate, told=progress.step)
    progress.finish()
    return _told(ended, f"{to.value} by {customer}")


def _told(made: list[Transfer], how: str) -> Output:
    which = made[0].device if len(made) == 1 else f"{len(made)} devices"
    output = Output([shapes.transfer(one) for one in made], [one.transfer_id for one in made],
                    words=(f"{which}: {how}",))
    accepted = made[0].state is TransferState.ACCEPTED
    return changing.plainly(output, [f"{which}: customer {made[0].offered_to} answers from now on, as its policy "
                                     "allows"] if accepted else [])


# --- looking ------------------------------------------------------------------------------------------------------


@verb(group, "list", "delegator transfers list --customer globex --state offered")
@click.option("--customer", type=typed(forms.name), help="Only those that this customer offers or is offered.")
@click.option("--state", type=click.Choice([state.value for state in TransferState]), help="Only those in this state.")
@click.option("--device", type=typed(forms.identifier), help="Only those of this device.")
@click.option("--order", type=typed(forms.words), help="Only those of this order.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, state: str | None, device: str | None, order: str | None,
                most: int) -> Output:
    """List transfers, newest first."""
    found = await store.ownership.transfers(
        customer=customer, state=None if state is None else TransferState(state), device=device, order=order,
        most=most + 1)
    shown = [shapes.transfer(one) for one in found]
    return await listing.shown(store, "transfers", shown, _COLUMNS, most,
                               {"customer": customer, "device": device, "order": order})


@verb(group, "show", "delegator transfers show ABC1234")
@click.argument("which", metavar="DEVICE", type=typed(forms.identifier))
@looking
async def show(store: Store, which: str) -> Output:
    """Show the transfer of this number, or the open offer of DEVICE: each step, by whom, and its signature."""
    found = await store.ownership.transfer(which)
    data = shapes.transfer(found)
    steps = [_step_shape(one.entry) for one in await store.ownership.steps(found)]
    return Output({**data, "steps": steps}, [*console.pairs(data), *console.table(
        [name.replace("_", " ") for name in _OF_STEP], [[one[name] for name in _OF_STEP] for one in steps])])


_OF_STEP = ("at", "step", "customer", "actor", "peer", "signature", "key")


def _step_shape(entry: Entry) -> shapes.Shape:
    """A row of audit as a step."""
    return {"at": shapes.at(entry.at), "step": entry.act.value, "customer": entry.customer, "actor": entry.actor,
            "peer": entry.peer, "signature": None, "key": None, "statement": None, **shapes.signature(entry)}


@verb(group, "statement", "delegator transfers statement accept ABC1234 > statement\n"
                          "openssl pkeyutl -sign -rawin -inkey globex.key -in statement -out signature\n"
                          "delegator transfers accept ABC1234 --as globex --signature signature")
@click.argument("step", type=click.Choice(list(_STEPS)))
@click.argument("which", metavar="DEVICE", type=typed(forms.identifier))
@click.option("--to", type=typed(forms.name), help="For an offer: the customer that may accept it.")
@click.option("--until", type=typed(forms.moment), help="For an offer: when it ends.")
def statement(step: str, which: str, to: str | None, until: datetime | None) -> Output | None:
    """Print what a customer signs for STEP, to be signed where its key is."""
    if step == "offer" and (to is None or until is None):
        raise click.UsageError("for an offer say --to and --until, the same as when it is made")
    return _statement(step=_STEPS[step], which=which, to=to, until=until)


@looking
async def _statement(store: Store, step: TransferState, which: str, to: str | None, until: datetime | None) -> Output:
    from delegator.store.transfers import stated

    if step is TransferState.OFFERED and to is not None and until is not None:
        await listing.must_know(store, {"customer": to})
        text = stated(await store.ownership.planned(which, to, ownership.to_the_second(until)), step)
    else:
        text = stated(await store.ownership.transfer(which), step)
    if not console.wants_json():
        click.echo(text, nl=False)  # the very bytes that are signed, whatever the terminal can show
    return Output({"statement": text.decode()})
