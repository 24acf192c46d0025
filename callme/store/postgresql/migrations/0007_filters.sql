-- Indexes for the filters and orders of lists.

-- All tasks by time, then name.
CREATE INDEX task_time ON task (trigger_at, task_name);

-- The ended tasks of a host. Those of task_host and task_running have not ended.
CREATE INDEX task_host_ended ON task (host, task_name, trigger_at) WHERE finished_at_ms IS NOT NULL;

-- Failures by reason: counted without reading the tasks, and listed by name.
DROP INDEX task_reason;
CREATE INDEX task_reason ON task (reason, task_name, trigger_at) WHERE state = 'failed';
