"""`delegator policies`: what a customer allows, and the lists of devices it approved.

The invariant: what is not said is the safe choice of the model, or of a policy that is changed, left as it is.
Must not live here: the options that say a policy (policy_options), judging by a policy (delegator.policy).
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from delegator.cli import changing, console, files, listing, policy_options, trying
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, settings, stored
from delegator.cli.tags import tags_in
from delegator.desk import forms, policy_file, policy_words, shapes
from delegator.errors import DelegatorError, Kind
from delegator.model import Policy
from delegator.store import Store
from delegator.store.changing import POLICY, relist
from delegator.store.transaction import Transaction


@click.group("policies", cls=console.Verbs, epilog=console.as_example("delegator policies show rollout"))
def group() -> None:
    """What a customer allows: when, to which devices, how many, by which proof of identity."""


group.add_command(trying.command)


_SHOWN = 5
"""Tags that are named in a note; of more only their number is told."""
_FILE = click.option("--file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
                     help="As this file says, where no option says otherwise: what `show --json` prints; - is standard "
                          "input.")


@verb(group, "add", "delegator policies add rollout --from 2026-03-01 --until 2026-04-01T18:00:00+02:00 "
                    "--max-devices 500\ndelegator policies add office --hours 'Mon-Fri 08:00-18:00 Europe/Berlin' "
                    "--network 192.0.2.0/24\n"
                    "delegator customers change acme --policy rollout")
@click.argument("name", type=typed(forms.name))
@policy_options.policy_options
@_FILE
@stored
async def add(store: Store, name: str, file: Path | None, **said: Any) -> Output:
    """Add the policy NAME. It applies to those customers and delegates that name it. To change one that is there:
    delegator policies change."""
    written = None if file is None else _written(file, name)
    policy = policy_options.changed(Policy(name) if written is None else written.policy, said)
    relisting = _Relisting(store, name, None if written is None else written.approved)
    await store.add_policy(policy, datetime.now(UTC), besides=relisting.work)
    where = settings().domains
    output = _stated(policy, "is registered")
    return changing.also(_noted(output.saying(*relisting.words), policy), [
        f"policy {name} is what [domains] policy names: devices that reverse DNS leads to an owner are judged by it"]
        if where.enabled and where.policy == name else [])


@verb(group, "change", "delegator policies change rollout --max-devices 800 --unset until\n"
                       "delegator policies try rollout --set max-devices=800")
@click.argument("name", type=typed(forms.name))
@policy_options.policy_options
@_FILE
@policy_options.unset_option
@stored
async def change(store: Store, name: str, file: Path | None, unset: tuple[str, ...], **said: Any) -> Output:
    """Change the policy NAME: what is not named stays. Says what changed, and whether that lets more devices in. See
    first what it would do: delegator policies try."""
    read = None if file is None else _written(file, name)
    written = {} if read is None else {key: value for key, value in read.said.items() if key != "name"}
    relisting = _Relisting(store, name, None if read is None else read.approved)
    if not unset and not policy_options.stated(said) and not written and relisting.work is None:
        raise click.UsageError("say what to change, or take something back with --unset")

    made = await _known(store, name)

    def how(one: Policy) -> Policy:
        nonlocal made
        made = policy_options.changed(replace(one, **written), said, unset)
        return made
    how(made)  # tried before anything is written
    output = relisting.told(await changing.change(store, POLICY, name, how, _shape, relisting.work))
    assert isinstance(output.data, dict)
    says = output.data["says"]
    return _noted(dataclasses.replace(output, data={**output.data, "changed": _fields(output.data["changed"])},
                   words=(*(word for word in output.words if not word.startswith("  says: ")),
                          f"policy {name} says: {'; '.join(says)}")), made)


def _noted(output: Output, policy: Policy) -> Output:
    """With what of a policy is in vain by the settings: it asks reverse DNS, which is not asked."""
    notes = () if settings().domains.enabled else policy_words.in_vain(policy)
    return output.saying(*(f"note: {one}" for one in notes))


class _Relisting:
    """The approved list of a policy becomes that of a file, where the file has one, with the policy itself."""

    def __init__(self, store: Store, policy: str, wanted: frozenset[str] | None) -> None:
        self._store, self._policy, self._wanted = store, policy, wanted
        self._moved = 0, 0
        self.work = None if wanted is None else self._relist

    def _relist(self) -> Transaction[None]:
        self._moved = yield from relist(self._policy, self._wanted or (), self._store.by, datetime.now(UTC))

    @property
    def words(self) -> tuple[str, ...]:
        added, removed = self._moved
        return () if self._wanted is None else (
            f"the list of policy {self._policy} is that of the file, {len(self._wanted)} tags: {added} new on it, "
            f"{removed} taken off",)

    def told(self, output: Output) -> Output:
        """A change with what became of the list: loudly where more are let in."""
        added, removed = self._moved
        if self._wanted is None:
            return output
        assert isinstance(output.data, dict)
        data = {**output.data, "approved": len(self._wanted)}
        changed, lets_in = data.pop("changed"), data.pop("lets_in")
        if added or removed:
            changed = [*changed, {"field": "approved", "old": len(self._wanted) - added + removed,
                                  "new": len(self._wanted)}]
        if added and data["approved_only"]:
            lets_in = [*lets_in, f"policy {self._policy}: {added} more devices are on its list"]
        return changing.told(data, f"policy {self._policy}", changed, lets_in, self.words)


def _fields(changed: list[changing.Difference]) -> list[changing.Difference]:
    """Without the words that are made of all fields."""
    return [one for one in changed if one["field"] != "says"]


@verb(group, "validate", "delegator policies show rollout --json > rollout.json\n"
                         "delegator policies validate rollout.json")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def validate(file: Path) -> Output:
    """Check the policy in FILE and say what it means. Changes nothing."""
    policy = _written(file).policy
    return _noted(_stated(policy, "makes sense"), policy)


def _written(file: Path, name: str | None = None) -> policy_file.Written:
    return policy_file.read(files.read(file, "policy file"), name)


def _stated(policy: Policy, what: str) -> Output:
    words = f"policy {policy.name} {what}: {'; '.join(policy_words.said(policy))}"
    return Output(_shape(policy), words=(words,))


def _shape(policy: Policy) -> shapes.Shape:
    return {**shapes.policy(policy), "says": policy_words.said(policy)}


async def _known(store: Store, name: str) -> Policy:
    found = (await store.tables()).policies.get(name)
    if found is None:
        raise console.missing("policy", name, "policies")
    return found


@verb(group, "list", "delegator policies list --customer acme --json")
@click.option("--customer", type=typed(forms.name), help="Only those that this customer, or a delegate of it, has.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, most: int) -> Output:
    """List policies by name."""
    tables = await store.tables()
    used = {one.policy for one in tables.customers.values() if customer in (None, one.name)} | {
        one.policy for one in tables.directory.delegates.values() if customer in (None, one.customer)}
    policies = [one for one in await store.policies() if customer is None or one.name in used]
    columns = ("name", "identity", "from", "until", "approved_only", "max_devices", "claims_per_hour", "attempts",
               "lease")
    shaped = [_shape(one) for one in policies]
    rows = [[*(one[name] for name in columns), "; ".join(map(str, policy.hours)), _whence(policy)]
            for one, policy in zip(shaped[:most], policies, strict=False)]
    lines = console.table([*(name.replace("_", " ") for name in columns), "hours", "where"], rows)
    return await listing.told(store, "policies", shaped, lines, most, {"customer": customer})


def _whence(policy: Policy) -> str:
    return ", ".join([*policy.networks, *policy.domains])


@verb(group, "show", "delegator policies show rollout --json")
@click.argument("name", type=typed(forms.name))
@looking
async def show(store: Store, name: str) -> Output:
    """Show the policy NAME and the devices on its approved list."""
    data = {**_shape(await _known(store, name)), "approved": await store.approved(name)}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator policies remove rollout")
@click.argument("name", type=typed(forms.name))
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the policy NAME and its list, once no customer or delegate names it any more."""
    return await changing.remove(store, POLICY, name)


@verb(group, "approve", "delegator policies approve rollout ABC1234 ABC1235\n"
                        "delegator policies approve rollout --from-file tags.txt")
@click.argument("name", type=typed(forms.name))
@click.argument("tags", type=typed(forms.tag), nargs=-1)
@click.option("--from-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="One service tag a line; # begins a comment; - is standard input.")
@stored
async def approve(store: Store, name: str, tags: tuple[str, ...], from_file: Path | None) -> Output:
    """Put service TAGS on the approved list of the policy NAME: all of them, or none if one is wrong."""
    wanted = _all_tags(tags, from_file)
    asked, strangers = (await _known(store, name)).approved_only, await store.fleet.unregistered(wanted)
    new = await store.approve(name, wanted, datetime.now(UTC))
    some = ", ".join(strangers[:_SHOWN]) + (", ..." if len(strangers) > _SHOWN else "")
    output = Output({"policy": name, "tags": len(wanted), "new": new, "not_registered": len(strangers)},
                    words=(f"{new} of {len(wanted)} tags were new on the list of policy {name}", *([
                        f"note: {len(strangers)} of them are not registered: {some}"] if strangers else [])))
    return changing.also(output, [f"policy {name}: {new} more devices are on its list"] if new and asked else [])


@verb(group, "disapprove", "delegator policies disapprove rollout ABC1234")
@click.argument("name", type=typed(forms.name))
@click.argument("tags", type=typed(forms.tag), nargs=-1)
@click.option("--from-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="One service tag a line; # begins a comment; - is standard input.")
@stored
async def disapprove(store: Store, name: str, tags: tuple[str, ...], from_file: Path | None) -> Output:
    """Take service TAGS off the approved list of the policy NAME."""
    await _known(store, name)
    wanted = _all_tags(tags, from_file)
    removed = await store.disapprove(name, wanted, datetime.now(UTC))
    return Output({"policy": name, "tags": len(wanted), "removed": removed},
                  words=(f"{removed} of {len(wanted)} tags were taken off the list of policy {name}",))


def _all_tags(tags: tuple[str, ...], from_file: Path | None) -> list[str]:
    """Each tag once, in order. Raises DelegatorError (MALFORMED) naming every line that is wrong."""
    found = [*tags, *([] if from_file is None else tags_in(from_file))]
    if not found and from_file is not None:
        raise DelegatorError(Kind.MALFORMED, f"{from_file} names no device: there is no service tag in it",
                             hint="write one service tag a line, or a table with a column service_tag")
    if not found:
        raise click.UsageError("give at least one TAG, or --from-file FILE")
    return list(dict.fromkeys(found))
