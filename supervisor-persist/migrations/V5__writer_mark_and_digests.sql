-- The number of the last group of writes that was committed: after a commit with an unknown outcome it tells.
CREATE TABLE writer_mark (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO writer_mark (id, number) VALUES (1, 0);

-- First eight bytes of BLAKE3 over a row's other columns: SQLite keeps no checksums of its own, so a flipped bit in a
-- value would be read as if it had been written. Rows from before have none.
ALTER TABLE service_state ADD COLUMN digest INTEGER;
ALTER TABLE journal ADD COLUMN digest INTEGER;
ALTER TABLE event ADD COLUMN digest INTEGER;
ALTER TABLE outbox ADD COLUMN digest INTEGER;
ALTER TABLE dead_letter ADD COLUMN digest INTEGER;
ALTER TABLE dedupe ADD COLUMN digest INTEGER;
-- The checkpoint's payload has a hash of its own; this one covers the columns beside it.
ALTER TABLE checkpoint ADD COLUMN digest INTEGER;
