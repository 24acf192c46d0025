-- Why tasks failed, without a look at them.
CREATE INDEX IF NOT EXISTS task_reason ON task (reason) WHERE state = 'failed';
