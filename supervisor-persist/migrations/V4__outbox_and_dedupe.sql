CREATE TABLE outbox (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    channel    TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    expires_at INTEGER,
    message    TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_by_channel ON outbox (channel, sequence);

CREATE TABLE dead_letter (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    channel TEXT NOT NULL,
    letter  TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letter_by_channel ON dead_letter (channel, number);

CREATE TABLE dedupe (
    key        TEXT PRIMARY KEY NOT NULL,
    value      BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dedupe_by_expiry ON dedupe (expires_at);
