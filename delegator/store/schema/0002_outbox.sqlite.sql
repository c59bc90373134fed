-- What administrators are still to be told. Written in the transaction that issues the claim; holds no secret.

CREATE TABLE outbox (
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
    UNIQUE (claim_id, kind)
) STRICT;
CREATE INDEX outbox_waiting ON outbox (kind, delegate, attempts, number) WHERE state = 'waiting';
CREATE INDEX outbox_ended ON outbox (ended_at) WHERE ended_at IS NOT NULL;

-- One queue for each kind and delegate with something waiting: when it may be worked on next. A target that is down
-- delays its own queue in one row, however much waits in it; who works on a queue holds it by pushing `due_at`.
CREATE TABLE outbox_queues (
    kind TEXT NOT NULL,
    delegate TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, delegate)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_queues_due ON outbox_queues (kind, due_at);
