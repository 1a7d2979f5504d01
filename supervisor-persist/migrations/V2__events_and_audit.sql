CREATE TABLE event (
    sequence INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    detail   TEXT NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- Rows of the trail are never changed or taken out one by one; these catch accidents, the hashes catch the rest.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit rows are never changed');
END;
