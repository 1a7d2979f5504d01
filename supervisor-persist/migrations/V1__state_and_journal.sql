-- Times are milliseconds since 1970 UTC; order comes from sequences alone.
CREATE TABLE service_state (
    service     TEXT PRIMARY KEY NOT NULL,
    incarnation INTEGER NOT NULL CHECK (incarnation >= 0),
    sequence    INTEGER NOT NULL,
    state       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE journal (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    service     TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    from_phase  TEXT NOT NULL,
    to_phase    TEXT NOT NULL,
    cause       TEXT NOT NULL,
    reason      TEXT NOT NULL
) STRICT;
