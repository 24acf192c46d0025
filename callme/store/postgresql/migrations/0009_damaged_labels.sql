-- Labels that another program has made unreadable prevent neither the deletion nor the reschedule
-- of their task: only new labels are parsed. The labels of a task are found by its key.

CREATE INDEX task_label_task ON task_label (task_name, trigger_at);

CREATE OR REPLACE FUNCTION label_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.labels = NEW.labels THEN
        IF OLD.trigger_at != NEW.trigger_at THEN
            UPDATE task_label SET trigger_at = NEW.trigger_at
            WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at;
        END IF;
        RETURN NULL;
    END IF;
    IF TG_OP != 'INSERT' THEN
        DELETE FROM task_label WHERE task_name = OLD.task_name AND trigger_at = OLD.trigger_at;
    END IF;
    IF TG_OP != 'DELETE' THEN
        INSERT INTO task_label
        SELECT given.key, given.value, NEW.task_name, NEW.trigger_at
        FROM json_each_text(NEW.labels::json) AS given;
    END IF;
    RETURN NULL;
END
$$;
