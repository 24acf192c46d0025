-- Labels that another program has made unreadable prevent neither the deletion nor the reschedule
-- of their task: only new labels are parsed. The labels of a task are found by its key.

CREATE INDEX task_label_task ON task_label (task_name, trigger_at);

DROP TRIGGER task_relabelled;

CREATE TRIGGER task_relabelled AFTER UPDATE OF labels ON task WHEN OLD.labels != NEW.labels BEGIN
    DELETE FROM task_label WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at;
    INSERT INTO task_label
    SELECT json_each.key, json_each.value, NEW.task_name, NEW.trigger_at FROM json_each(NEW.labels);
END;

CREATE TRIGGER task_label_moved AFTER UPDATE OF trigger_at ON task
WHEN OLD.labels != '{}' AND OLD.labels = NEW.labels AND OLD.trigger_at != NEW.trigger_at BEGIN
    UPDATE task_label SET trigger_at = NEW.trigger_at
    WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at;
END;

DROP TRIGGER task_unlabelled;

CREATE TRIGGER task_unlabelled AFTER DELETE ON task WHEN OLD.labels != '{}' BEGIN
    DELETE FROM task_label WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at;
END;
