-- Whose a device is, and how that changes; and the life of claims, held by the database too.

-- A device offered by one customer to another. Kept for good: who had what when is asked years later. Of a
-- registration that is gone only the name stays.
CREATE TABLE transfers (
    transfer_id TEXT PRIMARY KEY,
    device_id BIGINT REFERENCES devices (device_id) ON DELETE SET NULL,
    device TEXT NOT NULL,
    service_tag TEXT,
    order_number TEXT,
    offered_by TEXT NOT NULL,
    offered_to TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('offered', 'accepted', 'declined', 'withdrawn', 'lapsed')),
    offered_at BIGINT NOT NULL,
    until BIGINT NOT NULL,
    ended_at BIGINT,
    because TEXT,
    CHECK (offered_by <> offered_to),
    CHECK ((state = 'offered') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX transfers_open ON transfers (device_id) WHERE state = 'offered';
CREATE INDEX transfers_of_device ON transfers (device_id);
CREATE INDEX transfers_named ON transfers (device, offered_at);
CREATE INDEX transfers_lapsing ON transfers (until) WHERE state = 'offered';

-- Keys of devices whose main board was replaced: 'refused' the old one's, 'approved' the one that may claim, 'open'
-- any that is not refused, once. `binding` is what a claim is bound to; empty for 'open'.
CREATE TABLE boards (
    service_tag TEXT NOT NULL,
    binding TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (standing IN ('refused', 'approved', 'open')),
    since BIGINT NOT NULL,
    until BIGINT,
    PRIMARY KEY (service_tag, binding),
    CHECK ((standing = 'open') = (binding = ''))
);
CREATE UNIQUE INDEX boards_expected ON boards (service_tag) WHERE standing <> 'refused';

-- Public keys (PEM) with which customers sign what they offer and accept.
CREATE TABLE customer_keys (
    customer TEXT PRIMARY KEY REFERENCES customers (name) ON DELETE CASCADE,
    public_key TEXT NOT NULL,
    since BIGINT NOT NULL
);

-- A claim changes its state as the table in model/lifecycle.py says and in no other way, whatever statement asks.
CREATE FUNCTION refuse_claims_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a claim does not change its state like this' USING ERRCODE = 'integrity_constraint_violation';
END;
$$;
CREATE TRIGGER claims_moves BEFORE UPDATE OF state ON claims FOR EACH ROW
WHEN (OLD.state <> NEW.state AND OLD.state || ' to ' || NEW.state NOT IN (
    'asking to issued', 'issued to confirmed', 'asking to expired', 'issued to expired',
    'asking to released', 'issued to released', 'confirmed to released', 'expired to released'))
EXECUTE FUNCTION refuse_claims_move();

-- Row-level security, see 0001_start.
ALTER TABLE transfers ENABLE ROW LEVEL SECURITY;
ALTER TABLE boards ENABLE ROW LEVEL SECURITY;
ALTER TABLE customer_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON transfers FOR SELECT USING (
    current_setting('delegator.customer', true) IN (offered_by, offered_to));
CREATE POLICY of_customer ON boards FOR SELECT USING (service_tag IN (SELECT service_tag FROM devices));
CREATE POLICY of_customer ON customer_keys FOR SELECT USING (customer = current_setting('delegator.customer', true));
