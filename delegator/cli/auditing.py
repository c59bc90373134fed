"""`delegator audit`: who did what, when, from where, how it ended and why; and whether that is still as it was written.

The invariant: what is shown is what stands in the audit, and there is no secret in it.
Must not live here: checking (store.audit.verification), writing files (exporting).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from delegator.cli import console, exporting, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, settings, stored
from delegator.desk import audited, forms, shapes
from delegator.errors import APPEARANCES, DelegatorError, Kind
from delegator.model.audited import Act, Record
from delegator.store import Store
from delegator.store.audit.inspection import Wanted
from delegator.store.audit.verification import Finding, Known, Verification, Wrong
from delegator.trail import from_kept, tell

F = TypeVar("F", bound=Callable[..., Any])
WRONG = APPEARANCES[Kind.NOT_ENTITLED].exit_code
"""How `verify` ends when it finds something."""
_COLUMNS = ("row", "at", "act", "outcome", "service_tag", "customer", "actor", "peer", "repeated", "reasons")
_EXPORTED = ("chain", "number", "at", "until", "repeated", "act", "actor", "peer", "outcome", "service_tag", "customer",
             "delegate", "claim_id", "reasons", "detail", "hash")
def wanted(function: F) -> F:
    """The options that choose rows."""
    for option in (
            click.option("--actor", help='Only those of "device", "delegator" or "operator NAME".'),
            click.option("--act", type=click.Choice([act.value for act in Act]), metavar="ACT",
                         help="Only this, such as claim.issued or handshake.ended."),
            click.option("--outcome", help="Only those that ended so: done, Answered, NotEntitled, TlsRefused, ..."),
            click.option("--to", "until", type=typed(forms.moment), metavar="TIME", help="Only those before then."),
            click.option("--from", "since", type=typed(forms.moment), metavar="TIME", help="Only those since then."),
            click.option("--claim", "claim_id", type=typed(forms.claim_id), help="Only those of this claim."),
            click.option("--customer", type=typed(forms.owner),
                         help="Only those of this customer, or domain:<domain>."),
            click.option("--tag", "service_tag", type=typed(forms.tag), help="Only those of this device.")):
        function = option(function)
    return function


@click.group("audit", cls=console.Verbs, epilog=console.as_example("delegator audit list --tag ABC1234"))
def group() -> None:
    """Who did what, when, from where, and why it ended so."""


@verb(group, "list", "delegator audit list --customer acme --outcome NotEntitled --from 2026-03-01")
@wanted
@listing.most(100)
@looking
async def list_(store: Store, most: int, **chosen: Any) -> Output:
    """List what happened, newest first. What is equal within a quarter of an hour is one row: see REPEATED."""
    found = [shapes.record(one) for one in await store.audit.list(Wanted(**chosen), most + 1)]
    return await listing.shown(store, "rows", found, _COLUMNS, most, {
        "customer": chosen["customer"], "device": chosen["service_tag"], "claim": chosen["claim_id"]})


@verb(group, "show", "delegator audit show 4711")
@click.argument("number", type=typed(audited.row), metavar="NUMBER")
@looking
async def show(store: Store, number: tuple[str, int]) -> Output:
    """Show the row NUMBER (CHAIN:NUMBER where there are several chains), with the whole trail of a handshake."""
    found = await store.audit.record(*number)
    if found is None:
        raise DelegatorError(Kind.NOT_FOUND, f"there is no row {number[0]}:{number[1]} in the audit",
                             hint="see: delegator audit list; older rows may have been pruned")
    data = shapes.record(found)
    trail = _trail(found)
    told = [] if trail is None else ["", *tell(trail)]
    plain = {name: value for name, value in data.items() if name != "detail"}
    detail = {name: value for name, value in found.entry.detail.items() if name not in ("trail", "steps")}
    signed = shapes.signature(found.entry)
    return Output({**data, **({"signed": signed} if signed else {})},
                  [*console.pairs({**plain, "detail": detail, **({"signed": signed} if signed else {})}), *told])


@verb(group, "export", "delegator audit export audit-2026-03.jsonl --format jsonl --from 2026-03-01 --to 2026-04-01")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), default="-")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True,
              help="As CSV with a header, or as JSON lines.")
@wanted
@looking
async def export(store: Store, file: Path, form: str, **chosen: Any) -> Output | None:
    """Write rows to FILE, or to standard output, oldest first. Memory does not grow with their number."""
    which = Wanted(**chosen)
    count = await store.audit.count(which)
    if not count:
        await listing.must_know(store, {"customer": chosen["customer"], "claim": chosen["claim_id"]})
    progress = console.Progress(count, "exporting")
    done = await exporting.export(file, form, _EXPORTED, _exported(store, which, form), {}, "rows", progress.step)
    progress.finish()
    return done


@verb(group, "verify", "delegator audit verify")
@click.option("--head", "heads", type=typed(audited.head), multiple=True, metavar="CHAIN:NUMBER:HASH",
              help="A head that you know from the log or an earlier run: it must still be in its chain.")
@looking
async def verify(store: Store, heads: tuple[Known, ...]) -> Output:
    """Check every row against the one before it, and every chain against what is known of it.

    Tells the first thing that is wrong in each chain, and ends with 5 then. The heads it prints are worth writing down
    where nobody who can write the database can write: with --head they prove that nothing before them is gone.
    """
    try:
        verification = store.audit.verification(heads)
    except DelegatorError as error:
        if error.kind is Kind.CONFIGURATION:  # another sealing key says nothing of the rows
            raise
        return _without_key(error)
    progress = console.Progress(sum((await store.audit.chains()).values()), "verifying")
    async for rows in verification.run():
        progress.step(rows)
    progress.finish()
    return _verdict(verification)


@verb(group, "prune", "delegator audit prune --older-than 400d")
@click.option("--older-than", "older", type=typed(audited.age), metavar="DAYS",
              help="Instead of [audit] keep_days, such as 400d.")
@stored
async def prune(store: Store, older: timedelta | None) -> Output:
    """Remove the oldest rows. A sealed checkpoint stands for them, so that what stays can be verified as before."""
    older = older or timedelta(days=settings().audit.keep_days)
    if not older:
        raise click.UsageError("[audit] keep_days is 0, which keeps everything: give --older-than, such as 400d")
    now = datetime.now(UTC)
    what = await store.audit.prunable(now - older)
    progress = console.Progress(sum(one.rows for one in what), "pruning")
    await store.audit.prune(what, now - older, now, progress.step)
    progress.finish()
    data = [{"chain": one.chain, "up_to": one.upto.number, "rows": one.rows} for one in what]
    words = [f"{one.rows} rows of chain {one.chain} are gone, up to row {one.upto.number}" for one in what]
    return Output({"before": shapes.at(now - older), "pruned": data}, words=tuple(words) or ("no row is that old",))


# --- shapes -------------------------------------------------------------------------------------------------------


async def _exported(store: Store, which: Wanted, form: str) -> AsyncIterator[shapes.Shape]:
    async for record in store.audit.stream(which):
        data = shapes.record(record)
        if form == "csv":
            data |= {name: json.dumps(data[name], ensure_ascii=False) for name in ("reasons", "detail")}
        yield {name: data[name] for name in _EXPORTED}


def _trail(record: Record) -> dict[str, object] | None:
    """The trail of a handshake that ended without a claim, or of a claim's change."""
    kept = record.entry.detail.get("trail", record.entry.detail)
    return from_kept(kept) if isinstance(kept, dict) and "steps" in kept else None


def _verdict(verification: Verification) -> Output:
    findings, walks = verification.findings, verification.walks.values()
    heads = [f"{walk.chain}:{walk.head.number}:{walk.head.hash.hex()}" for walk in walks if walk.head.number]
    data = {"ok": not findings, "heads": heads, "rows": sum(walk.rows for walk in walks),
            "chains": [{"chain": walk.chain, "rows": walk.rows, "pruned_up_to": walk.begin.number,
                        "marked_up_to": walk.mark and walk.mark.number} for walk in walks],
            "findings": [_finding(one) for one in findings]}
    words = [_words(one) for one in findings] or [
        f"{data['rows']} rows of {len(verification.walks)} chain(s) are as they were written"]
    words += [f"when chain {walk.chain} was begun there were {walk.claims_before} claims already"
              for walk in walks if walk.claims_before]
    return Output(data, heads, tuple(words), WRONG if findings else 0)


def _without_key(error: DelegatorError) -> Output:
    finding = Finding(Wrong.KEY, "", 0, error.detail)
    data = {"ok": False, "heads": [], "rows": 0, "chains": [], "findings": [_finding(finding)]}
    hint = error.hint or "restore it from a backup"
    return Output(data, (), (f"KEY MISSING: {error.detail}\n  next: {hint}",), WRONG)


def _finding(one: Finding) -> shapes.Shape:
    return {"wrong": one.wrong.value, "chain": one.chain, "row": one.number, "words": one.words}


def _words(finding: Finding) -> str:
    return (f"{finding.wrong.value.upper()}: chain {finding.chain}: {finding.words}\n"
            "  next: keep this database as it is, and compare with a backup or an export of that time")
