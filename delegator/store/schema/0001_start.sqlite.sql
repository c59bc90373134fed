-- What is registered, and what is claimed. Times are milliseconds since 1970 (UTC); booleans are 0 and 1.
-- STRICT, so that a type that PostgreSQL would refuse is refused here too.

CREATE TABLE policies (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE approvals (
    policy TEXT NOT NULL REFERENCES policies (name) ON DELETE CASCADE,
    service_tag TEXT NOT NULL,
    PRIMARY KEY (service_tag, policy)
) STRICT, WITHOUT ROWID;

CREATE TABLE customers (
    name TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    policy TEXT REFERENCES policies (name)
) STRICT, WITHOUT ROWID;

CREATE TABLE delegates (
    name TEXT PRIMARY KEY,
    customer TEXT NOT NULL REFERENCES customers (name),
    kind TEXT NOT NULL,
    settings TEXT NOT NULL,
    sealed BLOB,
    url TEXT,
    trust_anchor TEXT,
    policy TEXT REFERENCES policies (name),
    enabled INTEGER NOT NULL DEFAULT 1,
    priority INTEGER NOT NULL DEFAULT 100,
    weight INTEGER NOT NULL DEFAULT 1 CHECK (weight > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE rules (
    name TEXT PRIMARY KEY,
    delegate TEXT REFERENCES delegates (name),
    delegator TEXT,
    priority INTEGER NOT NULL,
    conditions TEXT NOT NULL,
    CHECK ((delegate IS NULL) <> (delegator IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    device_id INTEGER PRIMARY KEY,
    customer TEXT NOT NULL REFERENCES customers (name),
    service_tag TEXT UNIQUE,
    serial_number TEXT UNIQUE,
    model TEXT,
    order_number TEXT,
    delegate TEXT REFERENCES delegates (name)
) STRICT;
CREATE INDEX devices_of_customer ON devices (customer);
CREATE INDEX devices_of_delegate ON devices (delegate) WHERE delegate IS NOT NULL;

CREATE TABLE device_macs (
    mac TEXT PRIMARY KEY,
    device_id INTEGER NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX macs_of_device ON device_macs (device_id);

CREATE TABLE claims (
    claim_id TEXT PRIMARY KEY,
    service_tag TEXT NOT NULL,
    customer TEXT NOT NULL,
    delegate TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asking', 'issued', 'confirmed', 'expired', 'released')),
    identity TEXT NOT NULL,
    binding TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    peer TEXT,
    asked_at INTEGER NOT NULL,
    busy_until INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    issued_at INTEGER,
    ended_at INTEGER,
    failed_at INTEGER,
    result TEXT,
    detail TEXT,
    notified INTEGER NOT NULL DEFAULT 0,
    sealed BLOB,
    CHECK (state = 'issued' OR sealed IS NULL)
) STRICT, WITHOUT ROWID;
-- Claim ids begin with the time, so the table itself is in the order of asking. Each further index would be
-- written by every handshake; the partial ones are written only once their condition holds.
-- A tag has one live claim at most, whatever the code above believes.
CREATE UNIQUE INDEX claims_live ON claims (service_tag) WHERE state IN ('asking', 'issued', 'confirmed');
CREATE INDEX claims_past ON claims (service_tag, state) WHERE state IN ('expired', 'released');
CREATE INDEX claims_lapsing ON claims (lease_until) WHERE state IN ('asking', 'issued');
CREATE INDEX claims_to_notify ON claims (delegate, asked_at) WHERE result IS NOT NULL AND notified = 0;

-- How many devices hold a live claim, by "customer/<name>" and "delegate/<name>": counted once, read in one step.
CREATE TABLE places (
    holder TEXT PRIMARY KEY,
    taken INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What servers last saw of a delegate's circuit breaker, for whoever asks from another process.
CREATE TABLE delegate_health (
    delegate TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Raised with every change of a small table, so that a server knows when its copy is old.
CREATE TABLE revision (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO revision VALUES (1, 1);
