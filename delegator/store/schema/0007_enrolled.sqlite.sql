-- Certificates issued online to devices that came with the shared one: on record before they leave, one standing for
-- each tag. `binding` is the hash of the secret the device asked with; nothing here is a secret.

CREATE TABLE enrolled (
    serial TEXT PRIMARY KEY,
    service_tag TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    binding TEXT NOT NULL,
    certificate TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER,
    reason TEXT,
    forgotten_at INTEGER,
    CHECK ((revoked_at IS NULL) = (reason IS NULL)),
    CHECK (forgotten_at IS NULL OR revoked_at IS NOT NULL)
) STRICT, WITHOUT ROWID;
-- While it stands the shared certificate is refused for the tag; once forgotten, it is not.
CREATE UNIQUE INDEX enrolled_standing ON enrolled (service_tag) WHERE forgotten_at IS NULL;
CREATE INDEX enrolled_of_tag ON enrolled (service_tag);
CREATE INDEX enrolled_of_claim ON enrolled (claim_id);
CREATE INDEX enrolled_revoked ON enrolled (not_after) WHERE revoked_at IS NOT NULL;

-- Who asked for a tag that another holds: one row for a tag, a day (since 1970) and a kind of identity.
CREATE TABLE contested (
    service_tag TEXT NOT NULL,
    day INTEGER NOT NULL,
    identity TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    customer TEXT,
    delegate TEXT,
    peer TEXT NOT NULL,
    times INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (service_tag, day, identity)
) STRICT, WITHOUT ROWID;
CREATE INDEX contested_day ON contested (day);

-- Administrators are told of these too: `notice` says of what, `day` keeps it to once a day.
CREATE TABLE outbox_with_notice (
    number INTEGER PRIMARY KEY,
    claim_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    customer TEXT NOT NULL,
    delegate TEXT NOT NULL,
    delegator TEXT NOT NULL,
    service_tag TEXT NOT NULL,
    peer TEXT,
    claimed_address TEXT,
    created_at INTEGER NOT NULL,
    give_up_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given up')),
    last_error TEXT,
    ended_at INTEGER,
    notice TEXT NOT NULL DEFAULT 'provisioned',
    day INTEGER NOT NULL DEFAULT 0,
    identity TEXT,
    UNIQUE (claim_id, kind, notice, day)
) STRICT;
INSERT INTO outbox_with_notice (number, claim_id, kind, customer, delegate, delegator, service_tag, peer,
    claimed_address, created_at, give_up_at, attempts, state, last_error, ended_at)
    SELECT number, claim_id, kind, customer, delegate, delegator, service_tag, peer, claimed_address, created_at,
    give_up_at, attempts, state, last_error, ended_at FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_with_notice RENAME TO outbox;
CREATE INDEX outbox_waiting ON outbox (kind, delegate, attempts, number) WHERE state = 'waiting';
CREATE INDEX outbox_ended ON outbox (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX outbox_contested ON outbox (delegate, kind, day) WHERE notice = 'second claimant';
