-- Certificates issued online to devices that came with the shared one: on record before they leave, one standing for
-- each tag. `binding` is the hash of the secret the device asked with; nothing here is a secret.

CREATE TABLE enrolled (
    serial TEXT PRIMARY KEY,
    service_tag TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    binding TEXT NOT NULL,
    certificate TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    used_at BIGINT,
    revoked_at BIGINT,
    reason TEXT,
    forgotten_at BIGINT,
    CHECK ((revoked_at IS NULL) = (reason IS NULL)),
    CHECK (forgotten_at IS NULL OR revoked_at IS NOT NULL)
);
-- While it stands the shared certificate is refused for the tag; once forgotten, it is not.
CREATE UNIQUE INDEX enrolled_standing ON enrolled (service_tag) WHERE forgotten_at IS NULL;
CREATE INDEX enrolled_of_tag ON enrolled (service_tag);
CREATE INDEX enrolled_of_claim ON enrolled (claim_id);
CREATE INDEX enrolled_revoked ON enrolled (not_after) WHERE revoked_at IS NOT NULL;

-- Who asked for a tag that another holds: one row for a tag, a day (since 1970) and a kind of identity.
CREATE TABLE contested (
    service_tag TEXT NOT NULL,
    day BIGINT NOT NULL,
    identity TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    customer TEXT,
    delegate TEXT,
    peer TEXT NOT NULL,
    times BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (service_tag, day, identity)
);
CREATE INDEX contested_day ON contested (day);

-- Administrators are told of these too: `notice` says of what, `day` keeps it to once a day.
ALTER TABLE outbox ADD COLUMN notice TEXT NOT NULL DEFAULT 'provisioned';
ALTER TABLE outbox ADD COLUMN day BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN identity TEXT;
ALTER TABLE outbox DROP CONSTRAINT outbox_claim_id_kind_key;
ALTER TABLE outbox ADD UNIQUE (claim_id, kind, notice, day);
CREATE INDEX outbox_contested ON outbox (delegate, kind, day) WHERE notice = 'second claimant';

-- Every delegator keeps the serials that were revoked: it is told of new ones as of a changed small table.
CREATE FUNCTION tell_revoked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE revision SET number = number + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER enrolled_revoked_told AFTER UPDATE OF revoked_at ON enrolled FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION tell_revoked();

-- Row-level security, see 0001_start.
ALTER TABLE enrolled ENABLE ROW LEVEL SECURITY;
ALTER TABLE contested ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON enrolled FOR SELECT USING (claim_id IN (SELECT claim_id FROM claims));
CREATE POLICY of_customer ON contested FOR SELECT USING (customer = current_setting('delegator.customer', true));
