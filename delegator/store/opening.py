"""Opens a claim by a transaction, or where the store's line does not move reads the answer that is there already.

A device that has its answer needs nothing written: it gets it by reading, which on SQLite waits for nobody.
The invariant: what is told by reading is what the transaction would have told, and is on disk.
Must not live here: what a claim is (store.claims), how lines are kept (the drivers).
"""

from __future__ import annotations

from delegator.clockwork.deadline import deadline
from delegator.errors import DelegatorError, Kind
from delegator.store import claims
from delegator.store.audit.ledger import Kept
from delegator.store.claims import Ask, Opened
from delegator.store.driver import OLD
from delegator.store.looking import look
from delegator.store.transaction import Work


async def opened(kept: Kept, ask: Ask, work: Work[Opened]) -> Opened:
    """What `work` opens. Raises DelegatorError (TRY_LATER) at once where the line is old and a device asks."""
    if not kept.driver.moves:  # no read for nothing before each claim: that would be 5 % of a handshake (measured)
        again = await look(kept.read, claims.again(ask))
        if again is not None:
            return again
        if kept.driver.age > OLD and deadline() is not None:
            raise kept.driver.crowded()
    try:
        return await kept.run(work, ask.scope, repeatable=True)
    except DelegatorError as error:
        if error.kind is not Kind.TRY_LATER or not kept.driver.reads_beside:
            raise
        again = await look(kept.read, claims.again(ask))
        if again is None:
            raise
        return again
