-- How many claims were opened in which minute (since 1970), by holder as in `places`: only of holders whose policy
-- limits claims per hour, and only as long as they count, some 61 rows each.

CREATE TABLE paces (
    holder TEXT NOT NULL,
    minute BIGINT NOT NULL,
    opened BIGINT NOT NULL CHECK (opened >= 0),
    PRIMARY KEY (holder, minute)
);

-- Row-level security, see 0001_start.
ALTER TABLE paces ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON paces FOR SELECT USING (
    holder = 'customer/' || current_setting('delegator.customer', true)
    OR holder IN (SELECT 'delegate/' || name FROM delegates));
