-- Metering: which claims are billable, plans that price them, statements of months that stay as they were told.

-- A claim that was issued is the billable event; no second row says so. `callback` is how the delegate that answered
-- was reached: a delegate may become another kind later, an event may not. Empty where nobody knows any more.
ALTER TABLE claims ADD COLUMN callback TEXT;
UPDATE claims SET callback = (SELECT kind FROM delegates WHERE delegates.name = claims.delegate);
UPDATE claims SET callback = 'soap' WHERE callback IS NULL AND delegate LIKE 'domain:%';
-- Claim ids begin with the time of asking, so the events of a month are a range of the primary key, but for those
-- issued an hour or more away from being asked for. These few alone have an index.
CREATE INDEX claims_issued_far ON claims (issued_at, claim_id) WHERE abs(issued_at - asked_at) >= 3600000;
-- What was billable stays so, whatever statement asks otherwise.
CREATE FUNCTION refuse_billed_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what is billed does not change' USING ERRCODE = 'integrity_constraint_violation';
END;
$$;
CREATE TRIGGER claims_stay BEFORE DELETE ON claims FOR EACH ROW WHEN (OLD.issued_at IS NOT NULL)
EXECUTE FUNCTION refuse_billed_change();
CREATE TRIGGER claims_billable BEFORE UPDATE OF claim_id, customer, delegate, callback, asked_at, issued_at ON claims
FOR EACH ROW WHEN (OLD.issued_at IS NOT NULL AND (
    NEW.claim_id <> OLD.claim_id OR NEW.customer <> OLD.customer OR NEW.delegate <> OLD.delegate
    OR NEW.callback IS DISTINCT FROM OLD.callback OR NEW.asked_at <> OLD.asked_at
    OR NEW.issued_at IS DISTINCT FROM OLD.issued_at))
EXECUTE FUNCTION refuse_billed_change();

-- Months are 'YYYY-MM'. A plan's versions are only ever added: in a month counts the one with the latest `since`, of
-- several the last version. Money is text, so that no digit is lost; `prices` are JSON, by kind of callback.
CREATE TABLE plans (
    name TEXT NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    since TEXT COLLATE "C" NOT NULL,
    currency TEXT NOT NULL,
    included BIGINT NOT NULL CHECK (included >= 0),
    price TEXT NOT NULL,
    prices TEXT NOT NULL,
    base_fee TEXT NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE TRIGGER plans_stay BEFORE UPDATE ON plans FOR EACH ROW EXECUTE FUNCTION refuse_billed_change();

-- Which plan a customer has from a month on; NULL for none. A customer that is gone still has its past.
CREATE TABLE customer_plans (
    customer TEXT NOT NULL,
    since TEXT COLLATE "C" NOT NULL,
    plan TEXT,
    PRIMARY KEY (customer, since)
);
CREATE INDEX customers_of_plan ON customer_plans (plan);

-- Months that are closed: from when to when they went, and what was stated. `digest` is in the audit as well.
CREATE TABLE statements (
    month TEXT COLLATE "C" PRIMARY KEY,
    zone TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    until_at BIGINT NOT NULL,
    closed_at BIGINT NOT NULL,
    closed_by TEXT NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE statement_lines (
    month TEXT COLLATE "C" NOT NULL REFERENCES statements (month),
    customer TEXT NOT NULL,
    item TEXT NOT NULL,
    title TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    confirmed BIGINT,
    included BIGINT NOT NULL,
    billable BIGINT NOT NULL,
    unit_price TEXT,
    amount TEXT,
    currency TEXT,
    plan TEXT,
    plan_version BIGINT,
    PRIMARY KEY (month, customer, item)
);
CREATE TRIGGER statements_stay BEFORE UPDATE OR DELETE ON statements
FOR EACH ROW EXECUTE FUNCTION refuse_billed_change();
CREATE TRIGGER statement_lines_stay BEFORE UPDATE OR DELETE ON statement_lines
FOR EACH ROW EXECUTE FUNCTION refuse_billed_change();

-- Row-level security, see 0001_start.
ALTER TABLE plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE customer_plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE statements ENABLE ROW LEVEL SECURITY;
ALTER TABLE statement_lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON customer_plans FOR SELECT USING (customer = current_setting('delegator.customer', true));
CREATE POLICY of_customer ON statement_lines FOR SELECT USING (customer = current_setting('delegator.customer', true));
CREATE POLICY of_customer ON plans FOR SELECT USING (name IN (SELECT plan FROM customer_plans));
CREATE POLICY of_customer ON statements FOR SELECT USING (month IN (SELECT month FROM statement_lines));
