-- When a task was last rescheduled, for calendars.
ALTER TABLE task ADD COLUMN rescheduled_at_ms INTEGER;
