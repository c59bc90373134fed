"""`delegator backup` and `delegator restore`: copies of the embedded database.

The invariant: neither the sealing key nor anything it opens gets into a copy or a message.
Must not live here: how copies are made and put back (store.engines.sqlite.backup).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from delegator.cli import changing, console, session
from delegator.cli.console import Output, command
from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act

if TYPE_CHECKING:
    from delegator.store.engines.sqlite.backup import Copy

T = TypeVar("T")
Progress = Callable[[int, int], None]
_APART = "the sealing key is not in it, and without that key nothing sealed in it can be read: keep the key elsewhere"


@command("backup", "delegator backup /backup/delegator-2030-01-31.db")
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> Output:
    """Copy the database to FILE, which must not exist, while delegators and commands go on using it.

    The copy is the database as it was when the command began; it is examined before it gets its name.
    """
    from delegator.store.engines.sqlite import backup as copies

    made = _with_progress("copying", lambda progress: copies.make(_database(), file, progress))
    unnoted, code = _noted(Act.DATABASE_BACKED_UP, made)
    return Output(_as_data(made), [str(file)], (f"{_words(made)}; {_APART}", *unnoted), code)


@command("restore", "delegator restore /backup/delegator-2030-01-31.db --replace")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Although there is a database; it is kept under another name.")
@click.option("--check", is_flag=True, help="Only examine the copy: is it sound, and does the sealing key open it.")
def restore(file: Path, replace: bool, check: bool) -> Output:
    """Put the copy in FILE where the settings expect the database. No delegator may be running.

    The copy is read through first: it must be sound, of a schema that this release knows, and the sealing key of the
    settings must open what is sealed in it. What it lets in that is refused now (customers enabled again, policies,
    approvals, certificates no longer revoked) is told with --check, and when it is done.
    """
    from delegator.serving.parts import load_key
    from delegator.store import receding
    from delegator.store.engines.sqlite import backup as copies

    path, settings = _database(), session.settings()
    found = copies.examine(file)
    key = load_key(settings)
    copies.opened_by(file, key)
    lets_in = receding.let_in(path, file, key, by_domain=settings.domains.enabled) if path.is_file() else ()
    if check:
        return changing.also(Output(_as_data(found), [str(file)],
                                    (f"{_words(found)}: sound, and the sealing key opens it",)), lets_in)
    aside = _with_progress("restoring", lambda progress: copies.restore(file, path, datetime.now(UTC), replace=replace,
                                                                         progress=progress))
    unnoted, code = _noted(Act.DATABASE_RESTORED, found)
    kept = () if aside is None else (f"what was there is kept as {aside}",)
    words = f"{_words(found)} restored; start the delegator. Claims made after the copy are not in it"
    return changing.also(Output({**_as_data(found), "path": str(path), "kept": aside and str(aside)}, [str(path)],
                                (words, *kept, *unnoted), code), lets_in)


def _noted(act: Act, copy: Copy) -> tuple[tuple[str, ...], int]:
    """What is to be said of the row of audit, and how the command ends: what was done is done, and is told, although no
    row tells it, as with another sealing key than that of the audit."""
    try:
        asyncio.run(_note(act, copy))
    except DelegatorError as error:
        words = f"error: that is done, but the audit has no row of it: {error.detail}\n  next: {error.hint}"
        return (words,), error.appearance.exit_code
    return (), 0


async def _note(act: Act, copy: Copy) -> None:
    """In the database that is, or was just put, in use: a copy is as it was before."""
    store = await session.open_named(session.settings())
    try:
        await store.audit.note(act, {"file": str(copy.path), "bytes": copy.size, "claims": copy.claims},
                               datetime.now(UTC))
    finally:
        await store.close()


def _database() -> Path:
    """The embedded database. Raises DelegatorError (CONFIGURATION) where there is another one."""
    settings = session.settings()
    if settings.store.url:
        raise DelegatorError(Kind.CONFIGURATION, "the settings name PostgreSQL, [store] url, which has its own tools",
                             hint="pg_dump or pg_basebackup, see docs/scale.md")
    return Path(settings.store.path)


def _with_progress(label: str, work: Callable[[Progress], T]) -> T:
    """A bar over the pages of a database, whose number is known once copying has begun."""
    bars: list[tuple[console.Progress, int]] = []

    def progress(done: int, total: int) -> None:
        bar, before = bars.pop() if bars else (console.Progress(total, label), 0)
        bar.step(done - before)
        bars.append((bar, done))
    result = work(progress)
    for bar, _ in bars:
        bar.finish()
    return result


def _as_data(found: Copy) -> dict[str, object]:
    return {"file": str(found.path), "bytes": found.size, "schema": found.schema, "claims": found.claims,
            "devices": found.devices, "sealing_keys": list(found.keys)}


def _words(found: Copy) -> str:
    return f"{found.size:,} bytes, schema {found.schema}, {found.devices:,} devices, {found.claims:,} claims"
