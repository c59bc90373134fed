-- Approvals with their columns in the order of their key. SQLite 3.40 checks a table WITHOUT ROWID wrongly whose last
-- column is in the key and not last in it: it reports NULLs that are not there, and misses values of a wrong type.

CREATE TABLE approvals_again (
    service_tag TEXT NOT NULL,
    policy TEXT NOT NULL REFERENCES policies (name) ON DELETE CASCADE,
    PRIMARY KEY (service_tag, policy)
) STRICT, WITHOUT ROWID;
INSERT INTO approvals_again (service_tag, policy) SELECT service_tag, policy FROM approvals ORDER BY service_tag, policy;
DROP TABLE approvals;
ALTER TABLE approvals_again RENAME TO approvals;
