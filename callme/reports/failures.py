"""Open failures, which no operator has acknowledged: their number, and the acknowledgement."""

from __future__ import annotations

from attrs import frozen

from ..store.codec import MAX_TIME_MS
from ..store.database import Write
from ..store.interface import Cursor

MAX_FAILURE_COUNT = 10_000
"""Maximum number of failures that are counted, within a few milliseconds."""
_SUBJECT = "failures"
_UNTIL = "SELECT until_ms FROM acknowledgement WHERE subject = ?"
_OPEN = """
    SELECT count(*), max(finished_at_ms) FROM (
        SELECT finished_at_ms FROM task INDEXED BY task_failures
        WHERE state = 'failed' AND finished_at_ms > ? AND finished_at_ms <= ?
        ORDER BY finished_at_ms DESC LIMIT ?
    ) AS unacknowledged
"""
_ACKNOWLEDGE = """
    INSERT INTO acknowledgement (subject, until_ms) VALUES (?, ?)
    ON CONFLICT (subject) DO UPDATE SET until_ms = excluded.until_ms
    WHERE acknowledgement.until_ms NOT BETWEEN excluded.until_ms AND ?
"""


@frozen(kw_only=True)
class OpenFailures:
    """Failed tasks that are neither acknowledged, rescheduled nor deleted.

    :ivar count: their number, at most :data:`MAX_FAILURE_COUNT`.
    :ivar latest_ms: the end of the last one: milliseconds since 1970; ``None`` without failures.
    :ivar acknowledged_until_ms: the time up to which failures are acknowledged: milliseconds since
        1970; 0 if none are.
    """

    count: int
    latest_ms: int | None
    acknowledged_until_ms: int = 0


def open_failures(cursor: Cursor, since_ms: int) -> OpenFailures:
    """Return the failures after a time that are not acknowledged.

    :param since_ms: milliseconds since 1970.
    """
    row = cursor.execute(_UNTIL, (_SUBJECT,)).fetchone()
    # A row that another program has damaged acknowledges nothing.
    is_intact = row is not None and type(row[0]) is int and 0 <= row[0] <= MAX_TIME_MS
    until_ms: int = row[0] if is_intact else 0
    values = (max(since_ms, until_ms), MAX_TIME_MS, MAX_FAILURE_COUNT)
    count, latest_ms = cursor.execute(_OPEN, values).fetchone()
    return OpenFailures(count=count, latest_ms=latest_ms, acknowledged_until_ms=until_ms)


def acknowledge(write: Write, until_ms: int) -> None:
    """Acknowledge all failures that ended up to a time, in addition to those acknowledged before.

    :param until_ms: milliseconds since 1970.
    """
    write.cursor.execute(_ACKNOWLEDGE, (_SUBJECT, until_ms, MAX_TIME_MS))
