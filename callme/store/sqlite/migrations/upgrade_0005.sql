-- Columns that hold milliseconds say so. Indexes follow their columns.

ALTER TABLE task RENAME COLUMN claimed_at TO claimed_at_ms;

ALTER TABLE task RENAME COLUMN created_at TO created_at_ms;

ALTER TABLE task RENAME COLUMN finished_at TO finished_at_ms;

ALTER TABLE attempt RENAME COLUMN started_at TO started_at_ms;

ALTER TABLE task ADD COLUMN rescheduled_from INTEGER;

ALTER TABLE task ADD COLUMN payload_base64 TEXT NOT NULL DEFAULT '';
