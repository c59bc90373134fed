-- The outbox takes messages of any event to anybody: the facts of an event are its body, one JSON object. The columns
-- keep the names of the first event's: `notice` is the event, `delegate` the recipient, `kind` the carrier. `subject` is
-- what a message is about, by its id (of these two events the claim's); the same `message_id` is told once.
CREATE TABLE outbox_of_messages (
    number INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    notice TEXT NOT NULL,
    delegate TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    customer TEXT,
    created_at INTEGER NOT NULL,
    give_up_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'given up')),
    last_error TEXT,
    ended_at INTEGER
) STRICT;
INSERT INTO outbox_of_messages (number, message_id, notice, delegate, kind, subject, body, customer, created_at,
    give_up_at, attempts, state, last_error, ended_at)
    SELECT number, claim_id || CASE notice WHEN 'provisioned' THEN '.provisioned.'
        ELSE strftime('.contested-%Y%m%d.', created_at / 1000, 'unixepoch') END || kind,
    notice, delegate, kind, claim_id, json_object('claimed_address', claimed_address, 'delegator', delegator,
        'identity', identity, 'peer', peer, 'service_tag', service_tag),
    customer, created_at, give_up_at, attempts, state, last_error, ended_at FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_of_messages RENAME TO outbox;
CREATE INDEX outbox_waiting ON outbox (kind, delegate, attempts, number) WHERE state = 'waiting';
CREATE INDEX outbox_ended ON outbox (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX outbox_subject ON outbox (subject);
CREATE INDEX outbox_contested ON outbox (delegate, kind, created_at) WHERE notice = 'second claimant';
