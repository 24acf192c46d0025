-- The lateness of the first attempt since a task was put or rescheduled. With it, an index alone
-- answers the history: to find the attempt of each task takes ten times as long.
ALTER TABLE task ADD COLUMN first_lateness_ms BIGINT;

-- The history covers a day. During an upgrade, daemons of the version before leave the column
-- empty: the history has no lateness of the tasks that they finish.
UPDATE task SET first_lateness_ms = attempt.lateness_ms FROM attempt
WHERE attempt.task_id = task.task_id AND number = last_attempt - attempts_used + 1
    AND (finished_at_ms >= extract(epoch FROM now() - interval '25 hours') * 1000
        OR (finished_at_ms IS NULL AND attempts_used > 0));

DROP INDEX task_finished;
CREATE INDEX task_finished ON task (finished_at_ms, state, first_lateness_ms)
WHERE finished_at_ms IS NOT NULL;

CREATE OR REPLACE FUNCTION keep_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    VALUES (OLD.finished_at_ms, OLD.state, OLD.first_lateness_ms);
    RETURN OLD;
END
$$;

-- See the function that this one replaces.
CREATE OR REPLACE FUNCTION keep_recent_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM task WHERE finished_at_ms >= OLD.finished_at_ms + 90000000
    ORDER BY finished_at_ms LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
        VALUES (OLD.finished_at_ms, OLD.state, OLD.first_lateness_ms);
    END IF;
    RETURN OLD;
END
$$;
