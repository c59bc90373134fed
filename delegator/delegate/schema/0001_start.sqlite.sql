-- What a delegate remembers. Times are milliseconds since 1970, UTC.
CREATE TABLE claims (
    claim_id TEXT PRIMARY KEY,
    service_tag TEXT NOT NULL,
    serial_number TEXT,
    model TEXT,
    mac_addresses TEXT NOT NULL,
    ip_address TEXT,
    host_name TEXT,
    domain TEXT,
    -- Also how a device is found when it shows its credential.
    user_name TEXT NOT NULL UNIQUE,
    -- The password; NULL once nobody may use it any more.
    sealed BLOB,
    asked_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    -- The end of its use: not_after at first, earlier once it is void or its device deployed.
    usable_until INTEGER NOT NULL,
    voided INTEGER NOT NULL DEFAULT 0,
    fetched_at INTEGER,
    result TEXT,
    detail TEXT,
    ended_at INTEGER,
    CHECK (usable_until <= not_after)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_of_tag ON claims (service_tag);
CREATE INDEX claims_to_wipe ON claims (usable_until) WHERE sealed IS NOT NULL;
CREATE INDEX claims_by_time ON claims (asked_at);
