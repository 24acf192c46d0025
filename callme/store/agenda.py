"""What is read for a calendar: see :mod:`callme.store.reads`."""

from __future__ import annotations

from . import reads
from .codec import SUMMARY_COLUMNS, TASK_STATE_COLUMNS, Row, to_task
from .interface import CalendarData, Cursor, Event

_EVENT = f"SELECT {SUMMARY_COLUMNS}, {TASK_STATE_COLUMNS}, claimed_at, last_attempt, host FROM task"
_SCHEDULED = f"""
    {_EVENT} INDEXED BY task_due WHERE state = 'scheduled' AND due_at < ?
    ORDER BY due_at LIMIT ?
"""
_FAILED = f"""
    {_EVENT} INDEXED BY task_failures WHERE state = 'failed' AND finished_at >= ?
    ORDER BY finished_at DESC LIMIT ?
"""
_SCHEDULED_OF_NAME = f"""
    {_EVENT} WHERE task_name = ? AND state = 'scheduled' AND due_at < ?
    ORDER BY trigger_at LIMIT ?
"""
_FAILED_OF_NAME = f"""
    {_EVENT} WHERE task_name = ? AND state = 'failed' AND finished_at >= ?
    ORDER BY finished_at DESC LIMIT ?
"""


def agenda(
    cursor: Cursor, task_name: str | None, until: int, failed_since: int, limit: int
) -> CalendarData | None:
    """Return what a calendar shows; ``None`` where a name is asked for that has no task."""
    since, most = failed_since * 1000, limit + 1
    if task_name is None:
        scheduled = cursor.execute(_SCHEDULED, (until, most)).fetchall()
        failed = cursor.execute(_FAILED, (since, most)).fetchall()
    else:
        if cursor.execute(reads.EXISTS, (task_name,)).fetchone() is None:
            return None
        scheduled = cursor.execute(_SCHEDULED_OF_NAME, (task_name, until, most)).fetchall()
        failed = cursor.execute(_FAILED_OF_NAME, (task_name, since, most)).fetchall()
    return CalendarData(
        [_event(row) for row in scheduled[:limit]],
        [_event(row) for row in failed[:limit]],
        len(scheduled) > limit,
        len(failed) > limit,
    )


def _event(row: Row) -> Event:
    *columns, claimed_at_ms, last_attempt, host = row
    task = to_task(tuple(columns))
    changed_at_ms = max(task.created_at_ms, claimed_at_ms or 0, task.finished_at_ms or 0)
    return Event(task, changed_at_ms, last_attempt, host)
