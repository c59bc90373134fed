"""`delegator policies`: what a customer allows, and the lists of devices it approved.

The invariant: what is not said is the safe choice of the model; a time without its zone is refused, never guessed.
Must not live here: judging by a policy (delegator.policy).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import click

from delegator.cli import console, forms, shapes
from delegator.cli.console import Output, verb
from delegator.cli.session import stored
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackKind, IdentityRule, Policy
from delegator.store import Store

_TIME = "ISO 8601 with its zone, or a date, which begins at midnight UTC."


@click.group("policies", epilog=console.as_example("delegator policies show rollout"))
def group() -> None:
    """What a customer allows: when, to which devices, how many, by which proof of identity."""


@verb(group, "add", "delegator policies add rollout --from 2026-03-01 --until 2026-04-01T18:00:00+02:00 "
                    "--max-devices 500\ndelegator customers add acme --title 'Acme' --policy rollout --replace")
@click.argument("name", type=forms.name)
@click.option("--identity", type=click.Choice([rule.value for rule in IdentityRule]), default="own",
              show_default=True, help="The certificate to show: the device's own, or the one that all share.")
@click.option("--from", "valid_from", type=forms.moment, metavar="TIME", help=f"Not before. {_TIME}")
@click.option("--until", "valid_until", type=forms.moment, metavar="TIME", help=f"Not from then on. {_TIME}")
@click.option("--approved-only", is_flag=True, help="Only devices on its list: delegator policies approve.")
@click.option("--max-devices", type=click.IntRange(0), help="How many devices may hold a claim at once.")
@click.option("--attempts", type=click.IntRange(1), default=10, show_default=True,
              help="Claims that one device may let expire.")
@click.option("--lease", type=forms.duration, default="24h", show_default=True,
              help="How long a device may ask again for the same credential.")
@click.option("--callbacks", type=forms.callbacks, metavar="KIND[,KIND]", help="Allowed ways to a delegate: soap, "
              "hosted. All unless said.")
@click.option("--shared-by-domain", is_flag=True, help="Let a shared certificate be enough where only reverse DNS led "
              "to the customer. Needs --identity shared or either too.")
@click.option("--no-custom-operations", is_flag=True, help="Allow nothing: no device is sent to a delegate.")
@click.option("--replace", is_flag=True, help="Change the policy if there is one of that name; its list stays.")
@stored
async def add(store: Store, name: str, identity: str, valid_from: datetime | None, valid_until: datetime | None,
              approved_only: bool, max_devices: int | None, attempts: int, lease: timedelta,
              callbacks: frozenset[CallbackKind] | None, shared_by_domain: bool, no_custom_operations: bool,
              replace: bool) -> Output:
    """Add the policy NAME. It applies to those customers and delegates that name it."""
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        raise click.UsageError(f"--until {shapes.at(valid_until)} is not after --from {shapes.at(valid_from)}")
    policy = Policy(name, not no_custom_operations, valid_from, valid_until, IdentityRule(identity), approved_only,
                    max_devices, callbacks, attempts, lease, shared_by_domain)
    await store.add_policy(policy, replace=replace)
    return Output(shapes.policy(policy), words=(f"policy {name} is registered",))


@verb(group, "list", "delegator policies list --json")
@stored
async def list_(store: Store) -> Output:
    """List all policies."""
    policies = [shapes.policy(one) for one in await store.policies()]
    columns = ("name", "identity", "from", "until", "approved_only", "max_devices", "attempts", "lease")
    return Output(policies, console.table([name.replace("_", " ") for name in columns],
                                          [[one[name] for name in columns] for one in policies]))


@verb(group, "show", "delegator policies show rollout --json")
@click.argument("name", type=forms.name)
@stored
async def show(store: Store, name: str) -> Output:
    """Show the policy NAME and the devices on its approved list."""
    found = (await store.tables()).policies.get(name)
    if found is None:
        raise console.missing("policy", name, "policies")
    data = {**shapes.policy(found), "approved": await store.approved(name)}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator policies remove rollout")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the policy NAME and its list, once no customer or delegate names it any more."""
    await store.remove("policy", name)
    return Output({"removed": name}, words=(f"policy {name} is removed",))


@verb(group, "approve", "delegator policies approve rollout ABC1234 ABC1235\n"
                        "delegator policies approve rollout --from-file tags.txt")
@click.argument("name", type=forms.name)
@click.argument("tags", type=forms.tag, nargs=-1)
@click.option("--from-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="One service tag a line; # begins a comment; - is standard input.")
@stored
async def approve(store: Store, name: str, tags: tuple[str, ...], from_file: Path | None) -> Output:
    """Put service TAGS on the approved list of the policy NAME: all of them, or none if one is wrong."""
    wanted = _all_tags(tags, from_file)
    new = await store.approve(name, wanted)
    return Output({"policy": name, "tags": len(wanted), "new": new},
                  words=(f"{new} of {len(wanted)} tags were new on the list of policy {name}",))


@verb(group, "disapprove", "delegator policies disapprove rollout ABC1234")
@click.argument("name", type=forms.name)
@click.argument("tags", type=forms.tag, nargs=-1)
@click.option("--from-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="One service tag a line; # begins a comment; - is standard input.")
@stored
async def disapprove(store: Store, name: str, tags: tuple[str, ...], from_file: Path | None) -> Output:
    """Take service TAGS off the approved list of the policy NAME."""
    if name not in (await store.tables()).policies:
        raise console.missing("policy", name, "policies")
    wanted = _all_tags(tags, from_file)
    removed = await store.disapprove(name, wanted)
    return Output({"policy": name, "tags": len(wanted), "removed": removed},
                  words=(f"{removed} of {len(wanted)} tags were taken off the list of policy {name}",))


def _all_tags(tags: tuple[str, ...], from_file: Path | None) -> list[str]:
    """Each tag once, in order. Raises DelegatorError (MALFORMED) naming every line that is wrong."""
    found = list(tags)
    if from_file is not None:
        with click.open_file(str(from_file), encoding="utf-8-sig", errors="replace") as lines:
            found += _tags_in(lines)
    if not found:
        raise click.UsageError("give at least one TAG, or --from-file FILE")
    return list(dict.fromkeys(found))


def _tags_in(lines: Iterable[str]) -> list[str]:
    tags, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        try:
            tags += [forms.tag(text)] if text else []
        except click.BadParameter as error:
            wrong.append(f"line {number}: {error.message}")
    if wrong:
        detail = f"{len(wrong)} lines are wrong, nothing was changed: " + "; ".join(wrong[:5])
        raise DelegatorError(Kind.MALFORMED, detail, reasons=tuple(wrong), hint="mend them and run it again")
    return tags
