"""Whether the audit is as it was written: every hash of every chain in order, and where a chain begins and ends.

Reads a page at a time, so a million rows need no more memory than a thousand. What it can find: a row changed, added,
removed, swapped or brought from another chain; an end cut off that was marked; a beginning removed without a
checkpoint, or with a forged one; a chain that another one knew and that is gone. What it cannot find, because
everything in the database agrees: the newest rows removed since the last mark. For that, a head that was written down
elsewhere is given to it.
The invariant: it changes nothing, and of each chain it tells the first thing that is wrong.
Must not live here: how rows are shown, what is done about it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from delegator.model.audited import Act
from delegator.store.audit.chain import START, Head, Link, hash_of, head_of, same, seal_of
from delegator.store.audit.inspection import COLUMNS, rows_after
from delegator.store.transaction import Query, Row

PAGE = 2000
NEAR = 8
"""How many rows around a wrong one are asked whether they were swapped with it."""
_WITNESSES = (Act.AUDIT_BEGAN.value, Act.AUDIT_MARKED.value)
Read = Callable[[Query], Awaitable[Sequence[Row]]]


class Wrong(enum.Enum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    REMOVED = "removed"
    SWAPPED = "out of order"
    MOVED = "from another chain"
    UNKNOWN_CHAIN = "unknown chain"
    CHECKPOINT = "checkpoint forged"
    MARK = "mark forged"
    KEY = "key missing"
    HEAD = "head not in the chain"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, at this row of a chain (0: no row in particular)."""

    wrong: Wrong
    chain: str
    number: int
    words: str


class Known(msgspec.Struct, frozen=True):
    """A head that a chain is known to have had, and who says so."""

    chain: str
    head: Head
    witness: str


@dataclass(slots=True)
class Walk:
    """One chain as far as it was checked. `begin` is where what stands there begins: after its checkpoint."""

    chain: str
    begin: Head
    head: Head
    mark: Head | None = None
    rows: int = 0
    finding: Finding | None = None
    claims_before: int = 0
    """Claims that were there already when the chain was begun."""
    said: dict[str, Known] = field(default_factory=dict)
    """The furthest head of each other chain that a row of this one names."""


class Verification:
    """One check of everything. `read` runs a query, `key` is the key of hashes; `known` are heads from outside."""

    def __init__(self, read: Read, key: bytes, known: Iterable[Known] = ()) -> None:
        self._read, self._key = read, key
        self._known = list(known)
        self.walks: dict[str, Walk] = {}
        self.findings: list[Finding] = []

    async def run(self) -> AsyncIterator[int]:
        """Check every chain, telling after each page how many rows it had."""
        chains = await self._chains()
        if not chains:
            self.findings.append(Finding(Wrong.REMOVED, "", 0, "there is no row at all, though the audit was begun"))
        for chain in chains:
            async for rows in self._walk(chain):
                yield rows
        await self._compare()

    async def _chains(self) -> list[str]:
        """Every chain that anything here knows of."""
        found = await self._read(Query(
            "SELECT chain FROM audit_marks UNION SELECT chain FROM audit_checkpoints UNION SELECT chain FROM audit"))
        return sorted({str(row[0]) for row in found} | {known.chain for known in self._known})

    # --- one chain ---

    async def _walk(self, chain: str) -> AsyncIterator[int]:
        walk = self.walks[chain] = await self._begun(chain)
        while rows := await self._read(rows_after(chain, walk.head.number, PAGE)):
            for row in rows:
                if not await self._follows(walk, row):
                    break
            yield len(rows)
            if walk.finding is not None:
                break
        self._end(walk)
        if walk.finding is not None:
            self.findings.append(walk.finding)

    async def _begun(self, chain: str) -> Walk:
        """Where a chain begins: at its checkpoint, if that is ours."""
        begin, forged = await self._sealed("checkpoint", chain)
        mark, bad_mark = await self._sealed("mark", chain)
        walk = Walk(chain, begin or Head(0, START), begin or Head(0, START), mark)
        if forged:
            walk.finding = Finding(Wrong.CHECKPOINT, chain, 0, "the checkpoint of its pruning was not made by us")
        elif bad_mark:
            walk.finding = Finding(Wrong.MARK, chain, 0, "the mark of how far it had come was not made by us")
        return walk

    async def _sealed(self, kind: str, chain: str) -> tuple[Head | None, bool]:
        """A checkpoint or mark (None where there is none), and whether it is forged."""
        rows = await self._read(Query(f"SELECT number, hash, seal FROM audit_{kind}s WHERE chain = $1", (chain,)))
        if not rows:
            return None, False
        head = head_of(rows[0])
        good = same(rows[0][2], seal_of(self._key, kind, chain, head))
        return (head if good else None), not good

    async def _follows(self, walk: Walk, row: Row) -> bool:
        """Whether this row is the next one; what is wrong where it is not."""
        link, stood = Link._make(row[:15]), row[15]
        if walk.finding is not None:
            return False
        if link.number != walk.head.number + 1 and not await self._pruned(walk, link.number):
            walk.finding = self._gap(walk, link.number)
            return False
        if link.number <= walk.head.number:
            return True
        own = hash_of(self._key, walk.head.hash, link)
        if not same(stood, own):
            walk.finding = await self._mismatch(walk, row)
            return False
        walk.head = Head(link.number, own)
        walk.rows += 1
        if link.act in _WITNESSES:
            self._note(walk, link)
        return True

    async def _pruned(self, walk: Walk, number: int) -> bool:
        """Whether rows went while we were reading: then the chain begins later than it did."""
        begin, _ = await self._sealed("checkpoint", walk.chain)
        if begin is None or begin.number <= walk.head.number or begin.number + 1 < number:
            return False
        walk.begin = walk.head = begin
        return True

    def _gap(self, walk: Walk, number: int) -> Finding:
        first, last = walk.head.number + 1, number - 1
        which = f"row {first} is" if first == last else f"rows {first} to {last} are"
        without = ", and no checkpoint says that they were pruned" if walk.rows == 0 else ""
        return Finding(Wrong.REMOVED, walk.chain, first, f"{which} missing{without}")

    async def _mismatch(self, walk: Walk, row: Row) -> Finding:
        """Why a row does not fit in its place."""
        link = Link._make(row[:15])
        near = await self._read(Query(f"SELECT {COLUMNS} FROM audit WHERE chain = $1 AND number BETWEEN $2 AND $3",
                                      (walk.chain, link.number - NEAR, link.number + NEAR)))
        hashes = [walk.head.hash, *(other[15] for other in near if isinstance(other[15], bytes))]
        for number in range(link.number - NEAR, link.number + NEAR + 1):
            moved = link._replace(number=number)
            if number != link.number and any(same(row[15], hash_of(self._key, before, moved)) for before in hashes):
                return Finding(Wrong.SWAPPED, walk.chain, link.number,
                               f"what stands as row {link.number} was written as row {number}")
        for chain in self.walks.keys() | set(await self._chains()):
            before = await self._read(Query("SELECT hash FROM audit WHERE chain = $1 AND number = $2",
                                            (chain, link.number - 1)))
            hashes = [START, *(one[0] for one in before if isinstance(one[0], bytes))]
            if chain != walk.chain and any(same(row[15], hash_of(self._key, one, link._replace(chain=chain)))
                                           for one in hashes):
                return Finding(Wrong.MOVED, walk.chain, link.number,
                               f"what stands as row {link.number} was written into chain {chain}")
        return Finding(Wrong.CHANGED, walk.chain, link.number,
                       f"row {link.number} was changed, or put there by somebody else")

    def _note(self, walk: Walk, link: Link) -> None:
        """What a row says of other chains."""
        detail = msgspec.json.decode(link.detail)
        walk.claims_before = detail.get("claims_before", walk.claims_before)
        heads = detail.get("heads", {})
        for chain, (number, hexed) in heads.items():
            before = walk.said.get(chain)
            if before is None or before.head.number < number:
                walk.said[chain] = Known(chain, Head(number, bytes.fromhex(hexed)),
                                         f"row {link.number} of chain {walk.chain}")

    def _end(self, walk: Walk) -> None:
        if walk.finding is not None:
            return
        if walk.mark is None:
            walk.finding = Finding(Wrong.UNKNOWN_CHAIN, walk.chain, 0, "it has rows, but was never begun by us"
                                   if walk.rows else "others know of it, but it is gone")
        elif walk.mark.number > walk.head.number:
            walk.finding = Finding(Wrong.REMOVED, walk.chain, walk.head.number + 1,
                                   f"its end was cut off: it had {walk.mark.number} rows when it was last marked")

    # --- what is known of chains ---

    async def _compare(self) -> None:
        """Heads that marks, other chains and people know must still be where they were."""
        known = [one for walk in self.walks.values() for one in walk.said.values()]
        known += [Known(walk.chain, walk.mark, "its mark") for walk in self.walks.values() if walk.mark is not None]
        wrong = {finding.chain for finding in self.findings}
        for one in (*self._known, *known):
            if one in self._known or one.chain not in wrong:
                finding = await self._missed(one)
                if finding is not None:
                    wrong.add(one.chain)
                    self.findings.append(finding)

    async def _missed(self, known: Known) -> Finding | None:
        """None where a chain still has that head. Rows that were pruned are vouched for by the checkpoint alone."""
        walk = self.walks.get(known.chain)
        if walk is not None and known.head.number < walk.begin.number:
            return None
        if walk is not None and known.head.number == walk.begin.number:
            found: object = walk.begin.hash
        else:
            rows = await self._read(Query("SELECT hash FROM audit WHERE chain = $1 AND number = $2",
                                          (known.chain, known.head.number)))
            found = rows[0][0] if rows else None
        if isinstance(found, bytes) and same(found, known.head.hash):
            return None
        how = "is gone" if found is None else "is another one"
        return Finding(Wrong.HEAD, known.chain, known.head.number,
                       f"row {known.head.number}, known from {known.witness}, {how}")
