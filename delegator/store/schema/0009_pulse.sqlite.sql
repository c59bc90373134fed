-- What readiness changes to see whether a change is durable. SQLite writes no page for a value that stays the same.

CREATE TABLE pulse (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    beat INTEGER NOT NULL
) STRICT;
INSERT INTO pulse VALUES (1, 0);
