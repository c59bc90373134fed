-- How many claims were opened in which minute (since 1970), by holder as in `places`: only of holders whose policy
-- limits claims per hour, and only as long as they count, some 61 rows each.

CREATE TABLE paces (
    holder TEXT NOT NULL,
    minute BIGINT NOT NULL,
    opened BIGINT NOT NULL CHECK (opened >= 0),
    PRIMARY KEY (holder, minute)
);
