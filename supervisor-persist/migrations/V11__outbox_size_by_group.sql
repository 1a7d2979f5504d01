-- What the outbox holds is counted once for each group of messages; a trigger did so for each message, which cost
-- more than storing it.
DROP TRIGGER outbox_grows;
DROP TRIGGER outbox_shrinks;
