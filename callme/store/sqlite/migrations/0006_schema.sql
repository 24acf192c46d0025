-- Times are seconds since 1970 UTC; those whose name ends in _ms are milliseconds.

CREATE TABLE task (
    task_id              INTEGER PRIMARY KEY,
    task_name            TEXT    NOT NULL,
    trigger_at           INTEGER NOT NULL CHECK (trigger_at % 60 = 0),
    callback             TEXT    NOT NULL,
    callback_method      TEXT    NOT NULL,
    payload              TEXT    NOT NULL,
    payload_base64       TEXT    NOT NULL DEFAULT '', -- a payload of bytes; empty where it is text
    headers              TEXT    NOT NULL, -- a JSON object
    expected_http_status TEXT    NOT NULL, -- a JSON list
    retry                INTEGER NOT NULL,
    retry_delay          TEXT    NOT NULL, -- a JSON list of minutes
    max_delay            INTEGER NOT NULL, -- minutes
    timeout              INTEGER NOT NULL, -- seconds
    on_failure           TEXT,             -- a URL to notify
    on_success           TEXT,             -- a URL to notify
    host                 TEXT    NOT NULL, -- the callback's host:port
    expires_at           INTEGER NOT NULL, -- trigger_at plus max_delay: no request starts then or later
    state                TEXT    NOT NULL CHECK (state IN ('scheduled', 'running', 'succeeded', 'failed')),
    reason               TEXT,
    detail               TEXT    NOT NULL DEFAULT '',
    due_at               INTEGER CHECK ((state = 'scheduled') = (due_at IS NOT NULL)),
    attempts_used        INTEGER NOT NULL DEFAULT 0,
    last_attempt         INTEGER NOT NULL DEFAULT 0,
    claimed_at_ms        INTEGER,
    lease_until          INTEGER,
    node                 TEXT,             -- the name of the daemon whose attempt it is
    created_at_ms        INTEGER NOT NULL,
    rescheduled_from     INTEGER,          -- its trigger_at before it was last rescheduled
    finished_at_ms       INTEGER,
    UNIQUE (task_name, trigger_at)
);

-- The due tasks, and their hosts.
CREATE INDEX task_due ON task (due_at, host, expires_at) WHERE state = 'scheduled';

-- The next tasks of one host: the longest due first (the index ends with task_id).
CREATE INDEX task_host ON task (host, due_at) WHERE state = 'scheduled';

CREATE INDEX task_running ON task (lease_until) WHERE state = 'running';

CREATE INDEX task_failed ON task (task_name, trigger_at) WHERE state = 'failed';

CREATE INDEX task_finished ON task (finished_at_ms) WHERE finished_at_ms IS NOT NULL;

-- Failures by reason, counted without reading the tasks.
CREATE INDEX task_reason ON task (reason) WHERE state = 'failed';

-- The latest failures.
CREATE INDEX task_failures ON task (finished_at_ms) WHERE state = 'failed';

CREATE TABLE attempt (
    task_id       INTEGER NOT NULL REFERENCES task ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    lateness_ms   INTEGER NOT NULL,
    duration_ms   INTEGER,
    status        INTEGER,
    reason        TEXT,
    detail        TEXT    NOT NULL,
    body          TEXT    NOT NULL,
    node          TEXT,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;
