-- What readiness changes to see whether a change is durable.

CREATE TABLE pulse (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    beat INTEGER NOT NULL
);
INSERT INTO pulse VALUES (1, 0);
ALTER TABLE pulse ENABLE ROW LEVEL SECURITY;
