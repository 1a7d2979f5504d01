CREATE TABLE checkpoint (
    id         TEXT PRIMARY KEY NOT NULL,
    number     INTEGER NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    services   INTEGER NOT NULL,
    operations INTEGER NOT NULL,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    payload    BLOB NOT NULL,
    quarantine TEXT
) STRICT;
