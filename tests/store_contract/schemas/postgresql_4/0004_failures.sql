-- What failed lately.
CREATE INDEX IF NOT EXISTS task_failures ON task (finished_at) WHERE state = 'failed';
