-- The past stays as it was when an ended task is rescheduled or deleted, and failures can be
-- acknowledged.

-- The outcomes of ended tasks that were rescheduled or deleted since. The history counts them.
CREATE TABLE removed_outcome (
    finished_at_ms BIGINT NOT NULL,
    state          TEXT   NOT NULL,
    lateness_ms    BIGINT           -- of the first attempt, if there was one
);

CREATE INDEX removed_outcome_finished ON removed_outcome (finished_at_ms);

-- The history covers a day: a purge of older tasks keeps nothing.
CREATE FUNCTION keep_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.finished_at_ms <= (
        SELECT max(finished_at_ms) FROM task WHERE finished_at_ms IS NOT NULL
    ) - 90000000 THEN
        RETURN OLD;
    END IF;
    INSERT INTO removed_outcome SELECT OLD.finished_at_ms, OLD.state, (
        SELECT lateness_ms FROM attempt
        WHERE task_id = OLD.task_id AND number = OLD.last_attempt - OLD.attempts_used + 1
    );
    -- Skipped where another daemon deletes them, so that the two cannot block each other.
    DELETE FROM removed_outcome WHERE ctid IN (
        SELECT ctid FROM removed_outcome WHERE finished_at_ms < OLD.finished_at_ms - 90000000
        LIMIT 100 FOR UPDATE SKIP LOCKED
    );
    RETURN OLD;
END
$$;

CREATE TRIGGER task_outcome_moved AFTER UPDATE OF rescheduled_from ON task
    FOR EACH ROW WHEN (OLD.finished_at_ms IS NOT NULL AND NEW.finished_at_ms IS NULL)
    EXECUTE FUNCTION keep_outcome();

-- Before the attempts are deleted with the task.
CREATE TRIGGER task_outcome_deleted BEFORE DELETE ON task
    FOR EACH ROW WHEN (OLD.finished_at_ms IS NOT NULL) EXECUTE FUNCTION keep_outcome();

-- Up to when failures are acknowledged: the headline of the web page leaves them out.
CREATE TABLE acknowledgement (
    subject  TEXT   PRIMARY KEY, -- 'failures'
    until_ms BIGINT NOT NULL
);
