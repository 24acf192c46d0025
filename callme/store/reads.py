"""What is read: each function is one consistent look at the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.task import Reason, State, Task
from ..core.times import Key
from .codec import (
    ATTEMPT_COLUMNS,
    DEFINITION_COLUMNS,
    SUMMARY_COLUMNS,
    TASK_STATE_COLUMNS,
    Row,
    to_attempt,
    to_key,
    to_task,
)
from .interface import (
    MAX_BACKLOG_COUNT,
    PAGE_CHARACTERS,
    Cursor,
    Page,
    StartupCounts,
    StoreStats,
    TaskVersion,
)

_LAST = "\U0010ffff"
_GET = f"""
    SELECT {DEFINITION_COLUMNS}, {TASK_STATE_COLUMNS}, task_id FROM task
    WHERE task_name = ? AND trigger_at = ?
"""
_SEEN = "SELECT state, created_at, attempts_used FROM task WHERE task_name = ? AND trigger_at = ?"
_ATTEMPTS = f"SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE task_id = ? ORDER BY number"
EXISTS = "SELECT 1 FROM task WHERE task_name = ? LIMIT 1"
# Left to itself either database would read the whole of task_host, which is in the order of hosts.
_WAITING = """
    SELECT DISTINCT host FROM (
        SELECT host FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?
        ORDER BY due_at
    ) AS due
"""
_SOME_BACKLOG = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?
        ORDER BY due_at LIMIT {MAX_BACKLOG_COUNT}
    ) AS due
"""
_OLDEST = "SELECT min(due_at) FROM task INDEXED BY task_due WHERE state = 'scheduled'"
# Each is counted in an index that holds nothing else, so that no task is read.
_SCHEDULED = "SELECT count(*) FROM task INDEXED BY task_due WHERE state = 'scheduled'"
_RUNNING = "SELECT count(*) FROM task INDEXED BY task_running WHERE state = 'running'"
_FINISHED = "SELECT count(*) FROM task INDEXED BY task_finished WHERE finished_at IS NOT NULL"
_FAILED = """
    SELECT reason, count(*) FROM task INDEXED BY task_reason WHERE state = 'failed' GROUP BY reason
"""
_BACKLOG = "SELECT count(*) FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?"


def get(cursor: Cursor, key: Key) -> Task | None:
    """Return one task with its attempts."""
    row = cursor.execute(_GET, (key.task_name, key.trigger_at)).fetchone()
    if row is None:
        return None
    attempts = cursor.execute(_ATTEMPTS, (row[-1],)).fetchall()
    return to_task(row[:-1], tuple(map(to_attempt, attempts)))


def changed(
    cursor: Cursor, seen: Mapping[Key, TaskVersion | None], limit: int
) -> Mapping[Key, Task | None]:
    """Return those of some tasks that are no longer as they were seen, up to a number."""
    tasks: dict[Key, Task | None] = {}
    for key, known in seen.items():
        if len(tasks) == limit:
            break
        row = cursor.execute(_SEEN, (key.task_name, key.trigger_at)).fetchone()
        if known is None or row is None or TaskVersion(State(row[0]), *row[1:]) != known:
            tasks[key] = get(cursor, key)
    return tasks


def page(
    cursor: Cursor,
    task_name: str | None,
    start_from: Key | None,
    limit: int,
    after: int | None,
    state: State | None,
    prefix: str = "",
) -> Page | None:
    """Return a page of tasks; ``None`` where a name is asked for that has no task."""
    conditions, values = ["TRUE"], list[Any]()
    if task_name is not None:
        if cursor.execute(EXISTS, (task_name,)).fetchone() is None:
            return None
        conditions.append("task_name = ?")
        values.append(task_name)
    if start_from is not None and task_name is not None:
        conditions.append("trigger_at >= ?")
        values.append(start_from.trigger_at)
    elif start_from is not None:
        conditions.append("(task_name, trigger_at) >= (?, ?)")
        values += [start_from.task_name, start_from.trigger_at]
    if prefix:
        conditions.append("task_name >= ?")
        values.append(prefix)
        if (following_name := successor(prefix)) is not None:
            conditions.append("task_name < ?")
            values.append(following_name)
    if after is not None:
        conditions.append("trigger_at > ?")
        values.append(after)
    if state is not None:
        # A literal, not a parameter: only so does SQLite see that a partial index fits.
        conditions.append(f"state = '{state.value}'")
    rows = cursor.execute(
        f"SELECT {SUMMARY_COLUMNS}, {TASK_STATE_COLUMNS} "
        f"FROM task WHERE {' AND '.join(conditions)} "
        "ORDER BY task_name, trigger_at LIMIT ?",
        (*values, limit + 1),
    )
    return _fitting(rows, limit)


def _fitting(rows: Iterable[Row], limit: int) -> Page:
    """Return the page that some rows make, and the key of the first that has no room on it."""
    tasks: list[Task] = []
    size = 0
    for row in rows:
        if len(tasks) == limit or size >= PAGE_CHARACTERS:
            return Page(tasks, to_key(row))
        tasks.append(to_task(row))
        size += sum(len(value) for value in row if isinstance(value, str))
    return Page(tasks, None)


def successor(prefix: str) -> str | None:
    """Return the least text that is greater than all that begin so; ``None`` where none is."""
    kept = prefix.rstrip(_LAST)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Surrogates are no characters.
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


def backlog(cursor: Cursor, now: float) -> int:
    """Return how many tasks are due and wait to be claimed."""
    count: int = cursor.execute(_BACKLOG, (int(now),)).fetchone()[0]
    return count


def waiting(cursor: Cursor, now: float) -> Sequence[str]:
    """Return the hosts that have tasks due."""
    return [host for (host,) in cursor.execute(_WAITING, (int(now),))]


def figures(cursor: Cursor, now: float, size: str, count: bool) -> StoreStats:
    """Say how much there is.

    :param size: a query for the bytes that it takes.
    """
    oldest = cursor.execute(_OLDEST).fetchone()[0]
    return StoreStats(
        backlog=_one(cursor, _SOME_BACKLOG, int(now)),
        oldest_due=0.0 if oldest is None else max(0.0, now - oldest),
        size=_one(cursor, size),
        tasks=_counts(cursor) if count else None,
    )


def _counts(cursor: Cursor) -> dict[tuple[State, Reason | None], int]:
    failed = dict.fromkeys(Reason, 0)
    for reason, count in cursor.execute(_FAILED):
        failed[Reason(reason)] = count
    return {
        (State.SCHEDULED, None): _one(cursor, _SCHEDULED),
        (State.RUNNING, None): _one(cursor, _RUNNING),
        (State.SUCCEEDED, None): _one(cursor, _FINISHED) - sum(failed.values()),
    } | {(State.FAILED, reason): count for reason, count in failed.items()}


def standing(cursor: Cursor, now: float) -> StartupCounts:
    """Say how the tasks stand as a daemon starts."""
    return StartupCounts(_one(cursor, _SCHEDULED), backlog(cursor, now), _one(cursor, _RUNNING))


def _one(cursor: Cursor, query: str, *values: object) -> int:
    return int(cursor.execute(query, values).fetchone()[0])
