-- The lateness of the first attempt since a task was put or rescheduled. With it, an index alone
-- answers the history: to find the attempt of each task takes ten times as long.
ALTER TABLE task ADD COLUMN first_lateness_ms INTEGER;

-- The history covers a day.
UPDATE task SET first_lateness_ms = (
    SELECT lateness_ms FROM attempt
    WHERE attempt.task_id = task.task_id AND number = last_attempt - attempts_used + 1
)
WHERE finished_at_ms >= (strftime('%s', 'now') - 90000) * 1000
    OR (finished_at_ms IS NULL AND attempts_used > 0);

DROP INDEX task_finished;
CREATE INDEX task_finished ON task (finished_at_ms, state, first_lateness_ms)
WHERE finished_at_ms IS NOT NULL;

DROP TRIGGER task_outcome_moved;
CREATE TRIGGER task_outcome_moved AFTER UPDATE OF rescheduled_from ON task
WHEN OLD.finished_at_ms IS NOT NULL AND NEW.finished_at_ms IS NULL BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    VALUES (OLD.finished_at_ms, OLD.state, OLD.first_lateness_ms);
END;

-- A purge of tasks that ended 25 hours before others keeps nothing.
DROP TRIGGER task_outcome_deleted;
CREATE TRIGGER task_outcome_deleted AFTER DELETE ON task
WHEN OLD.finished_at_ms IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM task WHERE finished_at_ms >= OLD.finished_at_ms + 90000000)
BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    VALUES (OLD.finished_at_ms, OLD.state, OLD.first_lateness_ms);
END;
