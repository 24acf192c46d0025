-- The name of the daemon that makes, or made, an attempt.

ALTER TABLE task ADD COLUMN node TEXT;

ALTER TABLE attempt ADD COLUMN node TEXT;
