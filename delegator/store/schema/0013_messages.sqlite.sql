-- What somebody is still to be told, of any event, by one carrier to one recipient: see store/outbox. It takes the place
-- of `outbox` and `outbox_queues`, where a program of the release before writes and reads as ever; what it leaves there
-- is moved here.
-- Programs from schema 11 on work with this.

CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    event TEXT NOT NULL,
    recipient TEXT NOT NULL,
    carrier TEXT NOT NULL,
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
CREATE INDEX messages_waiting ON messages (carrier, recipient, attempts, number) WHERE state = 'waiting';
CREATE INDEX messages_ended ON messages (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX messages_subject ON messages (subject);
CREATE INDEX messages_contested ON messages (recipient, carrier, created_at) WHERE event = 'second claimant';

-- One queue for each carrier and recipient with something waiting: when it may be worked on next. A target that is down
-- delays its own queue in one row, however much waits in it; who works on a queue holds it by pushing `due_at`.
CREATE TABLE message_queues (
    carrier TEXT NOT NULL,
    recipient TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (carrier, recipient)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_queues_due ON message_queues (carrier, due_at);
