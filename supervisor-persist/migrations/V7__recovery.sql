-- What was recovered from, passed over or lost, until somebody has seen it; the same finding is kept once.
CREATE TABLE recovery (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason  TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
    UNIQUE (kind, subject, reason)
) STRICT;

-- Whether the last owner ended by itself.
CREATE TABLE store_run (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    opened_at INTEGER NOT NULL,
    clean     INTEGER NOT NULL CHECK (clean IN (0, 1))
) STRICT;

-- The ladder asks for numbers and quarantine only; without this it would read past every payload.
CREATE INDEX checkpoint_by_number ON checkpoint (number, quarantine);
