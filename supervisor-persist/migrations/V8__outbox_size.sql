-- How much the outbox holds, kept beside it: counting it for each message would take longer the more there is.
CREATE TABLE outbox_size (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    rows  INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_size (id, rows, bytes) SELECT 1, count(*), coalesce(sum(bytes), 0) FROM outbox;

CREATE TRIGGER outbox_grows AFTER INSERT ON outbox
BEGIN
    UPDATE outbox_size SET rows = rows + 1, bytes = bytes + NEW.bytes;
END;

CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox
BEGIN
    UPDATE outbox_size SET rows = rows - 1, bytes = bytes - OLD.bytes;
END;
