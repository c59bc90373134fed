"""`delegator usage`: what was issued for whom in a month and what it costs; closing months; the proof by the audit.

The invariant: every amount is exact, printed as it is kept; a month that is closed is shown as it was stated, and what
would be otherwise now beside it.
Must not live here: counting (store.billing.usage), prices (delegator.billing), comparing (store.billing.reconciling).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from delegator.billing import corrections, totals
from delegator.cli import console
from delegator.cli.console import JSON_HELP, Output, verb
from delegator.cli.listing import must_know
from delegator.cli.parameters import typed
from delegator.cli.plans import this_month, zone
from delegator.cli.session import looking, stored
from delegator.desk import forms, shapes
from delegator.desk.shapes import Shape
from delegator.errors import APPEARANCES, Kind
from delegator.model.billed import Correction, Count, Line, Month, Period, Statement
from delegator.store import Store
from delegator.store.billing.reconciling import MEANS, Difference, Reconciliation, Verdict
from delegator.store.billing.usage import SLICE, slices

_REFUSED = APPEARANCES[Kind.NOT_ENTITLED].exit_code
"""How `reconcile` ends when usage is not proven."""
COLUMNS = ("month", "customer", "title", "item", "quantity", "confirmed", "included", "billable", "unit_price",
           "amount", "currency", "plan", "plan_version", "correction")
"""Of the CSV. A correction has the difference for its quantity and amount."""
_SHOWN = (*COLUMNS[1:2], *COLUMNS[3:12])


@click.group("usage", cls=console.Verbs, invoke_without_command=True, epilog=console.as_example(
    "delegator usage --month 2026-11 --csv > usage-2026-11.csv\ndelegator usage --customer acme --json"))
@click.option("--month", type=typed(forms.month), metavar="MONTH", help="Such as 2026-11; the current one unless said.")
@click.option("--customer", type=typed(forms.owner), help="Only this customer, or domain:<domain>.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header, a line for each line of an invoice.")
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@click.pass_context
def group(context: click.Context, month: Month | None, customer: str | None, as_csv: bool, as_json: bool) -> None:
    """Credentials issued in a month, by customer and way of callback, and what they cost.

    One that was issued is one event, however often the device asked for it and whatever it made of it.
    """
    if context.invoked_subcommand is not None:
        if month is not None or customer is not None or as_csv or as_json:
            raise click.UsageError(f"write the options behind {context.invoked_subcommand}")
        return
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two answers: choose one")
    output = _usage(month=month, customer=customer)
    assert output is not None
    if as_csv:
        assert isinstance(output.data, dict)
        output = Output(None, _csv([*output.data["lines"], *output.data["corrections"]]), output.words, exact=True)
    console.show(output, as_json)


@looking
async def _usage(store: Store, month: Month | None, customer: str | None) -> Output:
    now = datetime.now(UTC)
    month = month or this_month()
    period = await store.statements.period(month, zone())
    stated = await store.statements.statement(month)
    if customer is not None and not (stated and any(one.customer == customer for one in stated.lines)):
        await must_know(store, {"customer": customer})
    counted = await store.statements.lines(month, await _counts(store, period, now, customer), customer)
    lines = counted if stated is None else tuple(one for one in stated.lines if customer in (None, one.customer))
    changed = () if stated is None else corrections(lines, counted)
    data = {**shapes.period(period), "over": now >= period.ends, **shapes.closing(stated),
            "lines": [shapes.line(one) for one in lines], "totals": [shapes.total(one) for one in totals(lines)],
            "corrections": [shapes.correction(month, one) for one in changed]}
    return Output(data, _lines(lines, changed), tuple(_remarks(period, now, stated, lines, changed)))


async def _counts(store: Store, period: Period, now: datetime, customer: str | None = None) -> list[Count]:
    progress = console.Progress(sum(1 for _ in slices(period.begins, min(period.ends, now + SLICE))), "counting")
    try:
        return await store.usage.counts(period, now + SLICE, customer, progress.step)
    finally:
        progress.finish()


def _remarks(period: Period, now: datetime, stated: Statement | None, lines: Sequence[Line],
             changed: Sequence[Correction]) -> Iterator[str]:
    """What is to be known about the figures."""
    if now < period.ends:
        yield f"month {period.month} is not over: it ends at {shapes.at(period.ends)} ({period.zone}); figures so far"
    elif stated is None:
        yield f"month {period.month} is not closed; figures by the plans as they are: delegator usage close"
    else:
        yield f"month {period.month} was closed at {shapes.at(stated.closed_at)} by {stated.closed_by}"
    without = sorted({one.customer for one in lines if one.plan is None})
    if without:
        more = " ..." if len(without) > 10 else ""
        yield f"without a plan: {', '.join(without[:10])}{more}; see: delegator plans assign"
    if changed:
        yield (f"{len(changed)} lines would be stated otherwise now; find out why before they are billed: "
               f"delegator usage reconcile --month {period.month}")


# --- closing ------------------------------------------------------------------------------------------------------


@verb(group, "close", "delegator usage close --month 2026-11")
@click.option("--month", type=typed(forms.month), metavar="MONTH", help="The one before the current one unless said.")
@stored
async def close(store: Store, month: Month | None) -> Output:
    """State a month for good: its lines are kept as they are, and plans up to then can be changed no more.

    It must have ended an hour ago. What is counted otherwise later is shown as a correction beside the statement.
    """
    now = datetime.now(UTC)
    period = await store.statements.period(month or this_month().after(-1), zone())
    stated = await store.statements.close(period, await _counts(store, period, now), now)
    data = {**shapes.period(period), **shapes.closing(stated), "lines": [shapes.line(one) for one in stated.lines],
            "totals": [shapes.total(one) for one in totals(stated.lines)]}
    return Output(data, _lines(stated.lines, ()), (f"month {period.month} is closed: {len(stated.lines)} lines",))


# --- reconciling --------------------------------------------------------------------------------------------------


@verb(group, "reconcile", "delegator usage reconcile --month 2026-11 --verify")
@click.option("--month", type=typed(forms.month), metavar="MONTH", help="The one before the current one unless said.")
@click.option("--verify", is_flag=True, help="First check that the audit itself is as it was written.")
@looking
async def reconcile(store: Store, month: Month | None, verify: bool) -> Output:
    """Prove a month by the audit: each event has its one row of audit, each row its event, and they agree.

    Ends with 0 if all of it is proven, else with 5. Events from before the audit began, or from months that were
    pruned, are told as not provable.
    """
    month = month or this_month().after(-1)
    broken = await _verify(store) if verify else []
    period, stated = await store.statements.period(month, zone()), await store.statements.statement(month)
    reconciliation = store.reconciliation(period, stated)
    progress = console.Progress(await reconciliation.size(), "reconciling")
    async for step in reconciliation.run():
        progress.step(step)
    progress.finish()
    return _verdict(reconciliation, period, stated, broken, verify)


async def _verify(store: Store) -> list[str]:
    """What is wrong with the audit, in words."""
    verification = store.audit.verification()
    progress = console.Progress(sum((await store.audit.chains()).values()), "verifying")
    async for rows in verification.run():
        progress.step(rows)
    progress.finish()
    return [f"chain {one.chain}, row {one.number}: {one.words}" for one in verification.findings]


def _verdict(reconciliation: Reconciliation, period: Period, stated: Statement | None, broken: list[str],
             verified: bool) -> Output:
    found = reconciliation.found
    verdict = Verdict.DIFFERS if broken else reconciliation.verdict
    data = {**shapes.period(period), "verdict": verdict.value, "events": found.events, "rows": found.rows,
            "not_provable": found.unprovable, "audit_complete_since": shapes.at(reconciliation.since),
            "audit_verified": verified and not broken, "audit_findings": broken, **shapes.closing(stated),
            "differences": [_difference(one) for one in found.differences],
            "counted": {what.value: count for what, count in found.counted.items()}}
    words = (f"month {period.month}: {verdict.value}; {found.events} events, {found.rows} rows of audit, "
             f"{sum(found.counted.values())} differences, {found.unprovable} not provable",
             *_caveats(reconciliation, period, broken, verified))
    return Output(data, [*broken, *_differences(found.differences)], words,
                  0 if verdict is Verdict.PROVEN else _REFUSED)


def _caveats(reconciliation: Reconciliation, period: Period, broken: list[str], verified: bool) -> Iterator[str]:
    """What the verdict rests on."""
    if broken:
        yield "the audit is not as it was written, so it proves nothing; see: delegator audit verify"
    elif not verified:
        yield "that the audit is as it was written was not checked; add --verify"
    since = reconciliation.since
    if since is None:
        yield "there is no audit"
    elif since > period.begins:
        yield f"the audit is complete from {shapes.at(since)} on; an event removed from before then would not be missed"
    for what in reconciliation.found.counted:
        yield f"{what.value}: {MEANS[what]}"


def _difference(one: Difference) -> Shape:
    return {"what": one.what.value, "claim_id": one.claim_id, "row": one.row, "words": one.words,
            "means": MEANS[one.what]}


def _differences(found: Iterable[Difference]) -> list[str]:
    return console.table(("claim id", "row", "what", "words"),
                         [(one.claim_id, one.row, one.what.value, one.words) for one in found])


# --- as text ------------------------------------------------------------------------------------------------------


def _lines(lines: Sequence[Line], changed: Sequence[Correction]) -> Iterator[str]:
    """For people: lines, totals, corrections."""
    def cells(data: Shape) -> list[object]:
        return [data[name] for name in _SHOWN]
    sums: list[list[Any]] = [["total", None, one.quantity, None, one.quantity - one.billable, one.billable, None,
                              shapes.money(one.amount), one.currency, None] for one in totals(lines)]
    yield from console.table([name.replace("_", " ") for name in _SHOWN], [*(cells(shapes.line(one)) for one in lines),
                                                                          *sums])
    yield from console.table(("correction of", "item", "stated", "counted", "difference", "currency"), [
        (one.customer, one.item, one.stated, one.counted, shapes.money(one.difference),
         one.currency) for one in changed])


def _csv(rows: Iterable[Shape]) -> Iterator[str]:
    yield ",".join(COLUMNS)
    for row in rows:
        out = io.StringIO()
        values = {**row, "correction": "yes" if row["correction"] else "no"}
        csv.writer(out, lineterminator="").writerow([values.get(name) for name in COLUMNS])
        yield out.getvalue()
