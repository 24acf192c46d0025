-- Times are seconds since 1970 UTC, but for those whose name ends in _ms and
-- created_at, claimed_at, finished_at and started_at: milliseconds.

CREATE TABLE task (
    task_id              INTEGER PRIMARY KEY,
    task_name            TEXT    NOT NULL,
    trigger_at           INTEGER NOT NULL CHECK (trigger_at % 60 = 0),
    callback             TEXT    NOT NULL,
    callback_method      TEXT    NOT NULL,
    payload              TEXT    NOT NULL,
    headers              TEXT    NOT NULL, -- a JSON object
    expected_http_status TEXT    NOT NULL, -- a JSON list
    retry                INTEGER NOT NULL,
    retry_delay          TEXT    NOT NULL, -- a JSON list of minutes
    max_delay            INTEGER NOT NULL, -- minutes
    timeout              INTEGER NOT NULL, -- seconds
    host                 TEXT    NOT NULL, -- the callback's host:port
    expires_at           INTEGER NOT NULL, -- trigger_at and max_delay: no request starts from here on
    state                TEXT    NOT NULL CHECK (state IN ('scheduled', 'running', 'succeeded', 'failed')),
    reason               TEXT,
    detail               TEXT    NOT NULL DEFAULT '',
    due_at               INTEGER CHECK ((state = 'scheduled') = (due_at IS NOT NULL)),
    attempts_used        INTEGER NOT NULL DEFAULT 0,
    last_attempt         INTEGER NOT NULL DEFAULT 0,
    claimed_at           INTEGER,
    lease_until          INTEGER,
    created_at           INTEGER NOT NULL,
    finished_at          INTEGER,
    UNIQUE (task_name, trigger_at)
);

-- What is due, and for whom.
CREATE INDEX task_due ON task (due_at, host, expires_at) WHERE state = 'scheduled';

-- The next tasks of one host: the longest due first (the index ends with task_id).
CREATE INDEX task_host ON task (host, due_at) WHERE state = 'scheduled';

CREATE INDEX task_running ON task (lease_until) WHERE state = 'running';

CREATE INDEX task_failed ON task (task_name, trigger_at) WHERE state = 'failed';

CREATE INDEX task_finished ON task (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempt (
    task_id     INTEGER NOT NULL REFERENCES task ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    lateness_ms INTEGER NOT NULL,
    duration_ms INTEGER,
    status      INTEGER,
    reason      TEXT,
    detail      TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;
