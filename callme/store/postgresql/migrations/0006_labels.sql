-- Labels, and statuses after which a task is not tried again.

ALTER TABLE task ADD COLUMN no_retry_http_status TEXT NOT NULL DEFAULT '[]'; -- a JSON list

ALTER TABLE task ADD COLUMN labels TEXT NOT NULL DEFAULT '{}'; -- a JSON object

-- The labels of tasks, to find these by. The triggers below keep it equal to task.labels, and cost
-- nothing where a task has none.
CREATE TABLE task_label (
    key        TEXT COLLATE "C" NOT NULL,
    value      TEXT COLLATE "C" NOT NULL,
    task_name  TEXT COLLATE "C" NOT NULL,
    trigger_at BIGINT           NOT NULL,
    PRIMARY KEY (key, value, task_name, trigger_at)
);

CREATE FUNCTION label_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP != 'INSERT' THEN
        DELETE FROM task_label
        WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at
            AND (key, value) IN (SELECT * FROM json_each_text(OLD.labels::json));
    END IF;
    IF TG_OP != 'DELETE' THEN
        INSERT INTO task_label
        SELECT given.key, given.value, NEW.task_name, NEW.trigger_at
        FROM json_each_text(NEW.labels::json) AS given;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER task_labelled AFTER INSERT ON task
    FOR EACH ROW WHEN (NEW.labels != '{}') EXECUTE FUNCTION label_task();

CREATE TRIGGER task_relabelled AFTER UPDATE OF labels, trigger_at ON task
    FOR EACH ROW WHEN (OLD.labels != '{}' OR NEW.labels != '{}') EXECUTE FUNCTION label_task();

CREATE TRIGGER task_unlabelled AFTER DELETE ON task
    FOR EACH ROW WHEN (OLD.labels != '{}') EXECUTE FUNCTION label_task();
