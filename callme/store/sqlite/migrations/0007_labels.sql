-- Labels, and statuses after which a task is not tried again.

ALTER TABLE task ADD COLUMN no_retry_http_status TEXT NOT NULL DEFAULT '[]'; -- a JSON list

ALTER TABLE task ADD COLUMN labels TEXT NOT NULL DEFAULT '{}'; -- a JSON object

-- The labels of tasks, to find these by. The triggers below keep it equal to task.labels, and cost
-- nothing where a task has none.
CREATE TABLE task_label (
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    task_name  TEXT    NOT NULL,
    trigger_at INTEGER NOT NULL,
    PRIMARY KEY (key, value, task_name, trigger_at)
) WITHOUT ROWID;

CREATE TRIGGER task_labelled AFTER INSERT ON task WHEN NEW.labels != '{}' BEGIN
    INSERT INTO task_label
    SELECT json_each.key, json_each.value, NEW.task_name, NEW.trigger_at FROM json_each(NEW.labels);
END;

CREATE TRIGGER task_relabelled AFTER UPDATE OF labels, trigger_at ON task
WHEN OLD.labels != '{}' OR NEW.labels != '{}' BEGIN
    DELETE FROM task_label
    WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at
        AND (key, value) IN (SELECT json_each.key, json_each.value FROM json_each(OLD.labels));
    INSERT INTO task_label
    SELECT json_each.key, json_each.value, NEW.task_name, NEW.trigger_at FROM json_each(NEW.labels);
END;

CREATE TRIGGER task_unlabelled AFTER DELETE ON task WHEN OLD.labels != '{}' BEGIN
    DELETE FROM task_label
    WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at
        AND (key, value) IN (SELECT json_each.key, json_each.value FROM json_each(OLD.labels));
END;
