-- Metering: which claims are billable, plans that price them, statements of months that stay as they were told.

-- A claim that was issued is the billable event; no second row says so. `callback` is how the delegate that answered
-- was reached: a delegate may become another kind later, an event may not. Empty where nobody knows any more.
ALTER TABLE claims ADD COLUMN callback TEXT;
UPDATE claims SET callback = (SELECT kind FROM delegates WHERE delegates.name = claims.delegate);
UPDATE claims SET callback = 'soap' WHERE callback IS NULL AND delegate LIKE 'domain:%';
-- Claim ids begin with the time of asking, so the events of a month are a range of the table itself, but for those
-- issued an hour or more away from being asked for. These few alone have an index.
CREATE INDEX claims_issued_far ON claims (issued_at, claim_id) WHERE abs(issued_at - asked_at) >= 3600000;
-- What was billable stays so, whatever statement asks otherwise.
CREATE TRIGGER claims_stay BEFORE DELETE ON claims WHEN OLD.issued_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a claim that was issued is billable and stays');
END;
CREATE TRIGGER claims_billable BEFORE UPDATE OF claim_id, customer, delegate, callback, asked_at, issued_at ON claims
WHEN OLD.issued_at IS NOT NULL AND (
    NEW.claim_id <> OLD.claim_id OR NEW.customer <> OLD.customer OR NEW.delegate <> OLD.delegate
    OR NEW.callback IS NOT OLD.callback OR NEW.asked_at <> OLD.asked_at OR NEW.issued_at IS NOT OLD.issued_at)
BEGIN
    SELECT RAISE(ABORT, 'what is billed of a claim does not change');
END;

-- Months are 'YYYY-MM'. A plan's versions are only ever added: in a month counts the one with the latest `since`, of
-- several the last version. Money is text, so that no digit is lost; `prices` are JSON, by kind of callback.
CREATE TABLE plans (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    since TEXT NOT NULL,
    currency TEXT NOT NULL,
    included INTEGER NOT NULL CHECK (included >= 0),
    price TEXT NOT NULL,
    prices TEXT NOT NULL,
    base_fee TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER plans_stay BEFORE UPDATE ON plans
BEGIN
    SELECT RAISE(ABORT, 'a version of a plan does not change');
END;

-- Which plan a customer has from a month on; NULL for none. A customer that is gone still has its past.
CREATE TABLE customer_plans (
    customer TEXT NOT NULL,
    since TEXT NOT NULL,
    plan TEXT,
    PRIMARY KEY (customer, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX customers_of_plan ON customer_plans (plan);

-- Months that are closed: from when to when they went, and what was stated. `digest` is in the audit as well.
CREATE TABLE statements (
    month TEXT PRIMARY KEY,
    zone TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    until_at INTEGER NOT NULL,
    closed_at INTEGER NOT NULL,
    closed_by TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE statement_lines (
    month TEXT NOT NULL REFERENCES statements (month),
    customer TEXT NOT NULL,
    item TEXT NOT NULL,
    title TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    confirmed INTEGER,
    included INTEGER NOT NULL,
    billable INTEGER NOT NULL,
    unit_price TEXT,
    amount TEXT,
    currency TEXT,
    plan TEXT,
    plan_version INTEGER,
    PRIMARY KEY (month, customer, item)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER statements_changed BEFORE UPDATE ON statements
BEGIN
    SELECT RAISE(ABORT, 'a statement does not change');
END;
CREATE TRIGGER statements_removed BEFORE DELETE ON statements
BEGIN
    SELECT RAISE(ABORT, 'a statement stays');
END;
CREATE TRIGGER statement_lines_changed BEFORE UPDATE ON statement_lines
BEGIN
    SELECT RAISE(ABORT, 'a line of a statement does not change');
END;
CREATE TRIGGER statement_lines_removed BEFORE DELETE ON statement_lines
BEGIN
    SELECT RAISE(ABORT, 'a line of a statement stays');
END;
