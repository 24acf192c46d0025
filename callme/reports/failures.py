"""Failures that the operator has not acknowledged: their number, and the acknowledgement."""

from __future__ import annotations

from attrs import frozen

from ..store.codec import MAX_TIME_MS
from ..store.database import Write
from ..store.interface import Cursor

MAX_FAILURE_COUNT = 10_000
"""Maximum number of failures that are counted: more may take some milliseconds."""
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
    """The tasks that have failed, are still there as failed, and are not acknowledged.

    :ivar count: their number, at most :data:`MAX_FAILURE_COUNT`.
    :ivar latest_ms: when the last of them ended, in ms since 1970; ``None`` without any.
    :ivar acknowledged_until_ms: the last end, in ms since 1970, of the failures that are
        acknowledged; 0 without any.
    """

    count: int
    latest_ms: int | None
    acknowledged_until_ms: int = 0


def open_failures(cursor: Cursor, since_ms: int) -> OpenFailures:
    """Return the failures after a time that are not acknowledged.

    :param since_ms: ms since 1970.
    """
    row = cursor.execute(_UNTIL, (_SUBJECT,)).fetchone()
    # One that another program has damaged acknowledges nothing.
    is_intact = row is not None and type(row[0]) is int and 0 <= row[0] <= MAX_TIME_MS
    until_ms: int = row[0] if is_intact else 0
    values = (max(since_ms, until_ms), MAX_TIME_MS, MAX_FAILURE_COUNT)
    count, latest_ms = cursor.execute(_OPEN, values).fetchone()
    return OpenFailures(count=count, latest_ms=latest_ms, acknowledged_until_ms=until_ms)


def acknowledge(write: Write, until_ms: int) -> None:
    """Acknowledge all failures up to an end, in ms since 1970; never fewer than before."""
    write.cursor.execute(_ACKNOWLEDGE, (_SUBJECT, until_ms, MAX_TIME_MS))
