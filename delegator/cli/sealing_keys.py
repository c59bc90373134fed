"""`delegator sealing`: which keys seal what is in the database, and sealing it all again under a new one.

The invariant: keys are told by their ids only.
Must not live here: what is sealed where (store.resealing), making keys (configuration).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from delegator.cli import console, session
from delegator.cli.console import Output, verb
from delegator.cli.session import looking, stored
from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act
from delegator.store import Store
from delegator.store.resealing import Held


@click.group("sealing", cls=console.Verbs, epilog=console.as_example("delegator sealing status"))
def group() -> None:
    """The keys that seal secrets at rest, and their rotation."""


@verb(group, "status", "delegator sealing status")
@looking
async def status(store: Store) -> Output:
    """Count what is sealed by key and table, and say which key file is needed for what.

    Ends with 3 if something is sealed with a key that the settings do not name.
    """
    keys, held = store.resealing.known, await store.resealing.held()
    files = dict(zip(keys, _files(), strict=False))
    rows = [{"key": one.key, "file": files.get(one.key), "table": one.table, "values": one.values} for one in held]
    unneeded = [name for key, name in list(files.items())[1:] if key not in {one.key for one in held}]
    lost = sorted({one.key for one in held} - set(keys))
    words = (*(f"{name} is not needed any more: take it out of [sealing] older_key_files" for name in unneeded),
             *(f"key {key} seals something, and no file in [sealing] is that key: look for it in your copies"
               for key in lost))
    data = {"current": keys[0], "sealed": rows, "unneeded": unneeded, "missing": lost}
    return Output(data, console.table(("key", "file", "table", "values"), [list(row.values()) for row in rows]), words,
                  DelegatorError(Kind.CONFIGURATION, "").appearance.exit_code if lost else 0)


@verb(group, "rotate", "delegator sealing rotate")
@stored
async def rotate(store: Store) -> Output:
    """Seal everything again that is not sealed with the first key in the settings, on a live system.

    First put the new key into [sealing] key_file and the old one into older_key_files, and let every delegator read
    its settings again (SIGHUP): one that knows the old key alone could not open what is sealed here. A rotation that
    is cut off is begun again; what was done stays done.
    """
    current = store.resealing.known[0]
    old = sum(one.values for one in await _others(store, current))
    done, progress = 0, console.Progress(old, "sealing")
    async for number in store.resealing.rotate():
        done += number
        progress.step(number)
    progress.finish()
    await store.audit.note(Act.SEALING_ROTATED, {"key": current, "sealed_again": done}, datetime.now(UTC))
    left = sum(one.values for one in await _others(store, current))
    return Output({"key": current, "sealed_again": done, "left": left}, words=(_verdict(done, left),))


async def _others(store: Store, current: str) -> list[Held]:
    return [one for one in await store.resealing.held() if one.key != current]


def _verdict(done: int, left: int) -> str:
    if left:
        return f"{done} values sealed again, {left} came meanwhile under an older key: is there a delegator that did " \
               "not read its settings again? Send it SIGHUP, then run this again"
    older = session.settings().sealing.older_key_files
    then = f"; {', '.join(older)} can be taken out of older_key_files, and kept as long as backups are" if older else ""
    return f"{done} values sealed again, none is left under an older key{then}"


def _files() -> tuple[str, ...]:
    sealing = session.settings().sealing
    return (sealing.key_file, *sealing.older_key_files)
