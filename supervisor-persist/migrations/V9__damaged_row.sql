-- Rows that no longer fit their digest, as they were found, so that one flipped bit keeps nobody from the others.
CREATE TABLE damaged_row (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    source  TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT;
