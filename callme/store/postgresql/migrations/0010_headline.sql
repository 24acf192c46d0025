-- The past stays as it was when an ended task is rescheduled or deleted, and failures can be
-- acknowledged.

-- The outcomes of ended tasks that were rescheduled or deleted since. The history counts them.
CREATE TABLE removed_outcome (
    outcome_id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    finished_at_ms BIGINT NOT NULL,
    state          TEXT   NOT NULL,
    lateness_ms    BIGINT           -- of the first attempt, if there was one
);

CREATE INDEX removed_outcome_finished ON removed_outcome (finished_at_ms);

CREATE FUNCTION keep_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
    SELECT OLD.finished_at_ms, OLD.state, (
        SELECT lateness_ms FROM attempt
        WHERE task_id = OLD.task_id AND number = OLD.last_attempt - OLD.attempts_used + 1
    );
    RETURN OLD;
END
$$;

CREATE TRIGGER task_outcome_moved AFTER UPDATE OF rescheduled_from ON task
    FOR EACH ROW WHEN (OLD.finished_at_ms IS NOT NULL AND NEW.finished_at_ms IS NULL)
    EXECUTE FUNCTION keep_outcome();

-- The history covers a day: a purge of tasks that ended 25 hours before others keeps nothing.
-- The order makes the planner read the index. EXISTS would ignore it, and could read the whole
-- table; max() would read every task that the transaction has deleted before.
CREATE FUNCTION keep_recent_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM task WHERE finished_at_ms >= OLD.finished_at_ms + 90000000
    ORDER BY finished_at_ms LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO removed_outcome (finished_at_ms, state, lateness_ms)
        SELECT OLD.finished_at_ms, OLD.state, (
            SELECT lateness_ms FROM attempt
            WHERE task_id = OLD.task_id AND number = OLD.last_attempt - OLD.attempts_used + 1
        );
    END IF;
    RETURN OLD;
END
$$;

-- Before the attempts are deleted with the task.
CREATE TRIGGER task_outcome_deleted BEFORE DELETE ON task
    FOR EACH ROW WHEN (OLD.finished_at_ms IS NOT NULL) EXECUTE FUNCTION keep_recent_outcome();

-- Up to when failures are acknowledged: the headline of the web page leaves them out.
CREATE TABLE acknowledgement (
    subject  TEXT   PRIMARY KEY, -- 'failures'
    until_ms BIGINT NOT NULL
);
