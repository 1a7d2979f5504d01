-- Runs are counted here and in a file: a database that has not seen the last run has lost its end.
ALTER TABLE store_run ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
