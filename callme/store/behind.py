"""What is read of what happened, and of what is going on: see :mod:`callme.store.reads`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ..core.task import State
from ..core.times import MINUTE
from .codec import SUMMARY_COLUMNS, TASK_STATE_COLUMNS, to_key, to_task
from .interface import ActivitySnapshot, Cursor, InFlightCall, MinuteOutcomes

_IN_MS = 1000 * MINUTE
# Two digits tell enough, and keep what is returned small however many tasks there are.
_ROUNDED = """
    CASE WHEN lateness_ms < 100 THEN lateness_ms
         WHEN lateness_ms < 1000 THEN lateness_ms / 10 * 10
         WHEN lateness_ms < 10000 THEN lateness_ms / 100 * 100
         WHEN lateness_ms < 100000 THEN lateness_ms / 1000 * 1000
         ELSE lateness_ms / 10000 * 10000 END
"""
# The first attempt since the task was put or rescheduled; what was too late has none.
_HISTORY = f"""
    SELECT finished_at / {_IN_MS} AS minute, state, {_ROUNDED} AS lateness, count(*)
    FROM task INDEXED BY task_finished
    LEFT JOIN attempt
        ON attempt.task_id = task.task_id AND attempt.number = last_attempt - attempts_used + 1
    WHERE finished_at >= ?
    GROUP BY 1, 2, 3 ORDER BY 1
"""
_RUNNING = "SELECT count(*) FROM task INDEXED BY task_running WHERE state = 'running'"
_UNDER_WAY = """
    SELECT task_name, trigger_at, host, last_attempt, claimed_at, node
    FROM task INDEXED BY task_running WHERE state = 'running' ORDER BY claimed_at LIMIT ?
"""
_FAILURES = f"""
    SELECT {SUMMARY_COLUMNS}, {TASK_STATE_COLUMNS} FROM task INDEXED BY task_failures
    WHERE state = 'failed' ORDER BY finished_at DESC LIMIT ?
"""


def history(cursor: Cursor, since: int) -> Sequence[MinuteOutcomes]:
    """Return what ended from a second on, minute by minute."""
    rows = cursor.execute(_HISTORY, (since * 1000,))
    return [_ended(minute, list(those)) for minute, those in groupby(rows, lambda row: row[0])]


def _ended(minute: int, rows: Sequence[tuple[int, str, int | None, int]]) -> MinuteOutcomes:
    lateness: dict[int, int] = {}
    failed = 0
    for _, state, late, count in rows:
        failed += count if state == State.FAILED.value else 0
        if late is not None:
            lateness[late] = lateness.get(late, 0) + count
    succeeded = sum(row[-1] for row in rows) - failed
    return MinuteOutcomes(minute * MINUTE, succeeded, failed, lateness)


def glance(cursor: Cursor, limit: int) -> ActivitySnapshot:
    """Return what is going on, and what failed last."""
    rows = cursor.execute(_UNDER_WAY, (limit,)).fetchall()
    return ActivitySnapshot(
        cursor.execute(_RUNNING).fetchone()[0],
        [InFlightCall(to_key(row), *row[2:]) for row in rows],
        [to_task(row) for row in cursor.execute(_FAILURES, (limit,))],
    )
