-- Pauses and limits that operators set for a host, or for all hosts ('*').
CREATE TABLE host_setting (
    host           TEXT    PRIMARY KEY, -- host:port
    max_concurrent INTEGER,             -- calls in flight
    max_per_minute INTEGER,             -- calls that start
    paused_at      INTEGER,             -- the last pause, which may have ended
    paused_until   INTEGER
) WITHOUT ROWID;
