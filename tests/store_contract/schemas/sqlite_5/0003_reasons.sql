-- Why tasks failed, without a look at them.
CREATE INDEX task_reason ON task (reason) WHERE state = 'failed';
