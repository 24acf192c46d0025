-- What failed lately.
CREATE INDEX task_failures ON task (finished_at) WHERE state = 'failed';
