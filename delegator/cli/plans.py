"""`delegator plans`: what customers pay, in versions that hold from a month on, and who has which.

Must not live here: which words make a plan (desk.plans), what a plan makes of events (delegator.billing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from delegator.cli import changing, console, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import as_usage, ranged, typed
from delegator.cli.session import looking, settings, stored
from delegator.desk import forms, plans, shapes
from delegator.model.billed import Month, Plan
from delegator.store import Store
from delegator.store.billing.plans import in_force

F = TypeVar("F", bound=Callable[..., Any])
_COLUMNS = ("name", "version", "since", "currency", "included", "price", "prices", "base_fee")
_SINCE = "From this month on, such as 2026-12; {0} unless said."


def plan_options(function: F) -> F:
    """What a plan says."""
    for option in (
            click.option("--base-fee", type=typed(forms.fee), metavar="AMOUNT",
                         help="A month, however many events; none unless said."),
            click.option("--price", "prices", type=typed(plans.price), multiple=True, metavar="[WAY=]AMOUNT",
                         help="Of one event past the included ones; with WAY for those by this way of callback."),
            click.option("--included", type=ranged(plans.INCLUDED), metavar="NUMBER",
                         help="Events a month that cost nothing; 0 unless said."),
            click.option("--currency", metavar="CODE", help="Such as EUR.")):
        function = option(function)
    return function


@click.group("plans", cls=console.Verbs, epilog=console.as_example("delegator plans list"))
def group() -> None:
    """What customers pay: included events, price per event, base fee."""


@verb(group, "add", "delegator plans add standard --currency EUR --included 1000 --price 0.25\n"
                    "delegator plans add large --currency EUR --base-fee 500 --price 0.10 --price ssh=0.15")
@click.argument("name", type=typed(forms.name))
@plan_options
@click.option("--from", "since", type=typed(forms.month), metavar="MONTH", help=_SINCE.format("the current one"))
@stored
async def add(store: Store, name: str, since: Month | None, **said: Any) -> Output:
    """Add the plan NAME, with a --currency and a --price."""
    with as_usage():
        general, by_way = plans.prices(said["prices"])
        plan = plans.made({"name": name, "currency": said["currency"], "price": general, "prices": by_way,
                           "since": plans.since(since, this_month(), first=True),
                           **{key: said[key] for key in ("included", "base_fee") if said[key] is not None}})
    return _told(await store.plans.add(plan, datetime.now(UTC)), "is registered")


@verb(group, "change", "delegator plans change standard --price 0.22 --from 2027-01")
@click.argument("name", type=typed(forms.name))
@plan_options
@click.option("--from", "since", type=typed(forms.month), metavar="MONTH", help=_SINCE.format("the next one"))
@stored
async def change(store: Store, name: str, since: Month | None, **said: Any) -> Output:
    """Change the plan NAME from a month on: what is not said stays. What was billed before keeps its version."""
    with as_usage():
        general, by_way = plans.prices(said["prices"])
    wanted = {"currency": said["currency"], "included": said["included"], "base_fee": said["base_fee"],
              "price": general, "prices": by_way or None}
    changes = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise click.UsageError("say what to change: --price, --included, --base-fee or --currency")
    begins = plans.since(since, this_month(), first=False)

    def how(last: Plan) -> Plan:
        with as_usage():
            return plans.changed(last, {**changes, "since": begins})
    before, after = await store.plans.amend(name, how, datetime.now(UTC))
    fields = [one for one in changing.differences(shapes.plan(before), shapes.plan(after)) if one["field"] != "version"]
    output = _told(after, "is changed")
    words = [f"  {one['field']}: {console.short(one['old'])} -> {console.short(one['new'])}" for one in fields]
    return output.saying(*words)


def _told(plan: Plan, what: str) -> Output:
    return Output(shapes.plan(plan),
                  words=(f"plan {plan.name} {what}: version {plan.version} holds from {plan.since} on",))


@verb(group, "list", "delegator plans list --customer acme --json")
@click.option("--customer", type=typed(forms.owner), help="Only those that this customer has or had.")
@click.option("--currency", metavar="CODE", help="Only those in this currency.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, currency: str | None, most: int) -> Output:
    """List every version of every plan, by name."""
    had = None if customer is None else {one.plan for one in await store.plans.assignments(customer)}
    wanted = listing.filters(currency=currency)
    found = [shapes.plan(one) for one in await store.plans.all() if wanted(one) and (had is None or one.name in had)]
    lines = console.table([name.replace("_", " ") for name in _COLUMNS], [_cells(one) for one in found[:most]])
    return await listing.told(store, "plans", found, lines, most, {"customer": customer})


@verb(group, "show", "delegator plans show standard")
@click.argument("name", type=typed(forms.name))
@looking
async def show(store: Store, name: str) -> Output:
    """Show the plan NAME as it holds this month, its other versions, and who has it from when on."""
    versions = await store.plans.versions(name)
    now = in_force(versions, this_month()) or versions[0]
    customers = [{"customer": one.customer, "since": str(one.since), "until": None if until is None else str(until)}
                 for one, until in await _having(store, name)]
    shaped = [shapes.plan(one) for one in versions]
    data = {**shapes.plan(now), "versions": shaped, "customers": customers}
    return Output(data, [*console.pairs(shapes.plan(now)), "", *console.table(_COLUMNS, map(_cells, shaped)), "",
                         *console.table(("customer", "from", "to"), [list(one.values()) for one in customers])])


async def _having(store: Store, name: str) -> list[tuple[Any, Month | None]]:
    """Assignments of a plan, each with the customer's last month of it."""
    found = await store.plans.assignments()
    pairs = zip(found, [*found[1:], None], strict=False)
    return [(one, after.since.after(-1) if after is not None and after.customer == one.customer else None)
            for one, after in pairs if one.plan == name]


@verb(group, "assign", "delegator plans assign acme standard --from 2026-12\ndelegator plans assign acme none")
@click.argument("customer", type=typed(forms.owner))
@click.argument("plan", type=typed(forms.name))
@click.option("--from", "since", type=typed(forms.month), metavar="MONTH",
              help=_SINCE.format("the current one for the first plan, else the next one"))
@stored
async def assign(store: Store, customer: str, plan: str, since: Month | None) -> Output:
    """Give CUSTOMER the PLAN from a month on, or `none`."""
    wanted = None if plan == forms.NOBODY else plan
    first = not await store.plans.assignments(customer)
    begins = plans.since(since, this_month(), first=first)
    await store.plans.assign(customer, wanted, begins, datetime.now(UTC))
    return Output({"customer": customer, "plan": wanted, "since": str(begins)},
                  words=(f"customer {customer} has plan {plan} from {begins} on",))


@verb(group, "remove", "delegator plans remove trial")
@click.argument("name", type=typed(forms.name))
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the plan NAME, if no customer has or had it."""
    await store.plans.remove(name, datetime.now(UTC))
    return Output({"removed": name}, words=(f"plan {name} is removed",))


def zone() -> str:
    """Where months begin and end; that it is a zone which this machine knows was seen when the settings were read."""
    return settings().billing.zone


def this_month() -> Month:
    return Month.at(datetime.now(UTC), zone())


def _cells(one: Mapping[str, Any]) -> list[object]:
    return [", ".join(f"{way}={value}" for way, value in one["prices"].items()) if name == "prices" else one[name]
            for name in _COLUMNS]
