-- Who is told, by a POST, when a task has failed or succeeded.

ALTER TABLE task ADD COLUMN on_failure TEXT;

ALTER TABLE task ADD COLUMN on_success TEXT;
