-- Who did what, when, from where, how it ended and why. Rows are only ever added, each chained to the one before it
-- by `hash` (store/chain.py); the only ones removed are the oldest, up to a checkpoint. No secret is in any row.

CREATE TABLE audit (
    chain TEXT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    act TEXT NOT NULL,
    actor TEXT NOT NULL,
    outcome TEXT NOT NULL,
    service_tag TEXT,
    customer TEXT,
    delegate TEXT,
    claim_id TEXT,
    peer TEXT,
    repeated BIGINT NOT NULL DEFAULT 1,
    reasons TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (chain, number)
);
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
    number BIGINT PRIMARY KEY,
    sealed BYTEA NOT NULL
);

-- Up to where a chain was pruned: the number and hash of the last row that went, and a seal over all of it.
CREATE TABLE audit_checkpoints (
    chain TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    seal BYTEA NOT NULL
);

-- How far a chain had come when it was last marked, so that an end that was cut off is missed. Sealed as above.
CREATE TABLE audit_marks (
    chain TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    seal BYTEA NOT NULL
);

-- Row-level security, see 0001_start.
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_marks ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON audit FOR SELECT USING (customer = current_setting('delegator.customer', true));
