-- Who did what, when, from where, how it ended and why. Rows are only ever added, each chained to the one before it
-- by `hash` (store/chain.py); the only ones removed are the oldest, up to a checkpoint. No secret is in any row.

CREATE TABLE audit (
    chain TEXT NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    until_at INTEGER NOT NULL,
    act TEXT NOT NULL,
    actor TEXT NOT NULL,
    outcome TEXT NOT NULL,
    service_tag TEXT,
    customer TEXT,
    delegate TEXT,
    claim_id TEXT,
    peer TEXT,
    repeated INTEGER NOT NULL DEFAULT 1,
    reasons TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (chain, number)
) STRICT;
-- Every index is paid for by every handshake. Times and claim ids only grow, so these two are written at their end.
-- A row of a claim is found by its claim, which has an index by tag; the rest, refusals and what operators did, by
-- an index that claims' rows do not enter. The last two are for what is neither a claim's nor a device's.
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_of_claim ON audit (claim_id) WHERE claim_id IS NOT NULL;
CREATE INDEX audit_of_tag ON audit (service_tag) WHERE claim_id IS NULL AND service_tag IS NOT NULL;
CREATE INDEX audit_of_outcome ON audit (outcome, at) WHERE outcome <> 'done';
CREATE INDEX audit_of_actor ON audit (actor, at) WHERE actor <> 'device';

-- The key of all hashes, 32 random bytes in base64, sealed for the row "audit_keys/<number>". Whoever rotates the
-- sealing key seals this anew as well.
CREATE TABLE audit_keys (
    number INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

-- Up to where a chain was pruned: the number and hash of the last row that went, and a seal over all of it.
CREATE TABLE audit_checkpoints (
    chain TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How far a chain had come when it was last marked, so that an end that was cut off is missed. Sealed as above.
CREATE TABLE audit_marks (
    chain TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;
