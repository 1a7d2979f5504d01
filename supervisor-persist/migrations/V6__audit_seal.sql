-- What stands for rows of the trail that were pruned: how many, which, and the hash the next row goes on from.
CREATE TABLE audit_seal (
    number INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL CHECK (last >= first),
    count  INTEGER NOT NULL CHECK (count = last - first + 1),
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    seal   BLOB NOT NULL CHECK (length(seal) = 32)
) STRICT;

CREATE TRIGGER audit_is_pruned_under_a_seal BEFORE DELETE ON audit
WHEN OLD.sequence > coalesce((SELECT max(last) FROM audit_seal), 0)
BEGIN
    SELECT RAISE(ABORT, 'audit rows are pruned under a seal only');
END;

CREATE TRIGGER audit_seal_is_not_changed BEFORE UPDATE ON audit_seal
BEGIN
    SELECT RAISE(ABORT, 'audit seals are never changed');
END;

CREATE TRIGGER audit_seal_is_not_deleted BEFORE DELETE ON audit_seal
BEGIN
    SELECT RAISE(ABORT, 'audit seals are never deleted');
END;
