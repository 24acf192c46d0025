-- The past stays as it was when an ended task is rescheduled or deleted, and failures can be
-- acknowledged.

-- The outcomes of ended tasks that were rescheduled or deleted since. The history counts them.
CREATE TABLE removed_outcome (
    outcome_id     INTEGER PRIMARY KEY,
    finished_at_ms INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    lateness_ms    INTEGER           -- of the first attempt, if there was one
);

CREATE INDEX removed_outcome_finished ON removed_outcome (finished_at_ms);

CREATE TRIGGER task_outcome_moved AFTER UPDATE OF rescheduled_from ON task
WHEN OLD.finished_at_ms IS NOT NULL AND NEW.finished_at_ms IS NULL BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    SELECT OLD.finished_at_ms, OLD.state, (
        SELECT lateness_ms FROM attempt
        WHERE task_id = OLD.task_id AND number = OLD.last_attempt - OLD.attempts_used + 1
    );
END;

-- Before the attempts are deleted with the task. The history covers a day: a purge of tasks that
-- ended 25 hours before others keeps nothing.
CREATE TRIGGER task_outcome_deleted BEFORE DELETE ON task
WHEN OLD.finished_at_ms IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM task WHERE finished_at_ms >= OLD.finished_at_ms + 90000000)
BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    SELECT OLD.finished_at_ms, OLD.state, (
        SELECT lateness_ms FROM attempt
        WHERE task_id = OLD.task_id AND number = OLD.last_attempt - OLD.attempts_used + 1
    );
END;

-- Up to when failures are acknowledged: the headline of the web page leaves them out.
CREATE TABLE acknowledgement (
    subject  TEXT    PRIMARY KEY, -- 'failures'
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;
