"""`delegator policies try`: shows what a policy would do to every device before it is saved.

The invariant: the answer comes while devices are read, one JSON document with --json, and nothing is changed.
Must not live here: judging devices (desk.trial), the forms of a policy (policy_options, desk.policy_file).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from delegator.cli import console, files, policy_options
from delegator.cli.parameters import typed
from delegator.cli.session import looking, settings
from delegator.cli.tags import tags_in
from delegator.desk import explained, forms, policy_file, policy_words
from delegator.model import NAME, IdentityKind
from delegator.store import Store

if TYPE_CHECKING:
    from delegator.desk.trial import Call, Change, Fate, Subject, Tally, Trial

_LISTS = ("refused", "allowed", "otherwise", "all")


@console.command("try", "delegator policies try rollout --set max-devices=100 --list refused\n"
                        "delegator policies try new.json --customer acme --from 192.0.2.7 --json")
@click.argument("policy", metavar="POLICY")
@policy_options.set_option
@policy_options.unset_option
@click.option("--customer", "customers", type=typed(forms.name), multiple=True,
              help="As if this customer named it too.")
@click.option("--delegate", "delegates", type=typed(forms.name), multiple=True,
              help="As if this delegate named it too.")
@click.option("--devices", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="Only these, one service tag a line; - is standard input. All registered ones unless said.")
@click.option("--list", "wanted", type=click.Choice(_LISTS), help="Name the devices that would become so.")
@click.option("--at", type=typed(forms.moment), metavar="TIME", help="As if they asked then; now unless said.")
@click.option("--from", "peer", type=typed(forms.ip), metavar="IP", help="From this address; unknown unless said.")
@click.option("--identity", type=click.Choice([kind.value for kind in IdentityKind]), default="own",
              show_default=True, help="With this certificate.")
@looking
async def command(store: Store, policy: str, devices: Path | None, wanted: str | None, at: datetime | None,
                  peer: str | None, identity: str, **said: Any) -> None:
    """What POLICY would do to every registered device, before it is saved. Changes nothing.

    POLICY is the name of a policy, changed by --set and --unset, or a file as `policies show --json` prints it (its
    `approved` is taken as the list that would be). Devices are judged by the code that serves them, with places,
    claims and attempts as they stand.
    """
    from delegator.desk.trial import Call, prepare
    from delegator.net.reverse import load_domains

    change = await _change(store, policy, **said)
    call = Call(peer or "", IdentityKind(identity), at or datetime.now(UTC))
    trial = await prepare(store, change, call, load_domains(settings().domains))
    tally = await _run(store, trial, None if devices is None else tags_in(devices), wanted)
    _show(change, call, trial, tally, wanted)
    if peer is None and (change.policy.networks or change.policy.domains):
        click.echo("note: the policy asks where a device calls from; say an address with --from", err=True)


async def _change(store: Store, policy: str, settings: Sequence[str], unset: Sequence[str], customers: Sequence[str],
                  delegates: Sequence[str]) -> Change:
    from delegator.desk.trial import Change

    approved = None
    if re.fullmatch(NAME, policy):
        base = (await store.tables()).policies.get(policy)
        if base is None:
            raise console.missing("policy", policy, "policies")
    else:
        written = policy_file.read(files.read(Path(policy), "policy file"))
        base, approved = written.policy, written.approved
    changed = policy_options.changed(base, policy_options.parsed(settings), unset)
    return Change(changed, frozenset(customers), frozenset(delegates), approved)


async def _run(store: Store, trial: Trial, tags: Sequence[str] | None, wanted: str | None) -> Tally:
    from delegator.desk.trial import Tally

    tally = Tally()
    progress = console.Progress(await store.surveys.devices() if tags is None else len(tags), "devices")
    naming = _Naming(wanted)
    async for page in _pages(store, tags):
        for fate in await trial.fates(page):
            tally.add(fate)
            naming.name(fate)
        progress.step(len(page))
    progress.finish()
    naming.end()
    return tally


def _pages(store: Store, tags: Sequence[str] | None) -> AsyncIterator[list[Subject]]:
    from delegator.desk.trial import pages_of, registered_pages

    return registered_pages(store) if tags is None else pages_of(store, tags)


class _Naming:
    """Shows the devices that were asked for, each as it is judged; with --json as the beginning of the document."""

    def __init__(self, wanted: str | None) -> None:
        self._wanted, self._json = wanted, console.wants_json()
        self._between = '{"affected": ['

    def name(self, fate: Fate) -> None:
        became = fate.becomes.name.lower()
        if self._wanted is None or became == "unchanged" or self._wanted not in (became, "all"):
            return
        if self._json:
            click.echo(self._between + json.dumps(explained.fate(fate)), nl=False)
            self._between = ",\n"
        else:
            because = "; ".join(text for _, text in fate.changed_reasons or fate.present_reasons)
            click.echo(f"{console.plain(fate.name)}  {fate.present.value} -> {fate.changed.value}  "
                       f"{console.plain(because)}")

    def end(self) -> None:
        """Before the summary, which goes on with the document."""
        if self._json:
            begun = self._between == ",\n"
            click.echo(("" if begun else self._between if self._wanted else "{") + ("], " if self._wanted else ""),
                       nl=False)


def _show(change: Change, call: Call, trial: Trial, tally: Tally, wanted: str | None) -> None:
    summary = explained.summary(change, call, trial, tally)
    if console.wants_json():
        click.echo(json.dumps(summary)[1:])
        return
    if wanted is not None:
        click.echo()
    for line in _lines(change, summary):
        click.echo(line)


def _lines(change: Change, summary: dict[str, Any]) -> Iterable[str]:
    becomes = summary["becomes"]
    yield f"policy {change.policy.name} would say: {'; '.join(policy_words.said(change.policy))}"
    yield (f"of {summary['devices']} devices {becomes['allowed']} would become allowed, {becomes['refused']} refused, "
           f"{becomes['otherwise']} refused for other reasons; {becomes['unchanged']} stay as they are")
    for name, found in (("verdict", summary["verdicts"]), ("reason", summary["reasons"])):
        yield from ("", *console.table((name, "present", "changed"), [
            (key, counted["present"], counted["changed"]) for key, counted in found.items()]))
    columns = ("holder", "taken", "max_devices", "left", "wanted")
    yield from ("", *console.table([name.replace("_", " ") for name in columns],
                                   [[one[name] for name in columns] for one in summary["places"]]))
    if not summary["places"]:
        yield f"nobody names policy {change.policy.name}; add --customer or --delegate to try it on theirs"
