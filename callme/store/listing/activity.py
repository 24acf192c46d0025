"""Queries for the next tasks, and for groups of similar failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from ...core.times import Key, is_key
from ..codec import MAX_TIME_MS
from ..interface import Cursor

_Row = tuple[Any, ...]
_HOST, _STEM, _REASON, _STATUS, _COUNT, _LAST_AT_MS = range(6)
"""The indexes of the columns in a row of similar failures."""

MAX_GROUPED = 10_000
"""Maximum number of failures that are grouped, which takes about 25 ms, mostly in the database."""

_NEXT = """
    SELECT task_name, trigger_at, due_at, host FROM task INDEXED BY task_due
    WHERE state = 'scheduled' ORDER BY due_at LIMIT ?
"""
_ANY = "SELECT 1 FROM task LIMIT 1"
# The beginning of a name up to its first separator, or else up to its last digits.
_SEPARATOR_AT = "instr(replace(replace(replace(task_name, ':', '.'), '_', '.'), '-', '.'), '.')"
_STEM_OF_NAME = """
    CASE WHEN separator_at > 1 THEN substr(task_name, 1, separator_at)
        WHEN rtrim(task_name, '0123456789') != '' THEN rtrim(task_name, '0123456789')
        ELSE task_name END
"""
# The index contains all that is read of a task, as its payload may be large. A damaged name
# is no text, or a damaged time no number.
_FAILURES = f"""
    SELECT host, {_STEM_OF_NAME}, failed.reason, attempt.status, count(*), max(finished_at_ms)
    FROM (
        SELECT task_id, task_name, host, reason, last_attempt, finished_at_ms,
            {_SEPARATOR_AT} AS separator_at
        FROM task INDEXED BY task_failures
        WHERE state = 'failed' ORDER BY finished_at_ms DESC LIMIT ?
    ) AS failed
    LEFT JOIN attempt ON failed.reason = 'unexpected_status'
        AND attempt.task_id = failed.task_id AND attempt.number = failed.last_attempt
    WHERE CAST(task_name AS TEXT) = task_name AND finished_at_ms BETWEEN 0 AND {MAX_TIME_MS}
    GROUP BY 1, 2, 3, 4
"""
_ONE_MORE = """
    SELECT 1 FROM task INDEXED BY task_failures
    WHERE state = 'failed' ORDER BY finished_at_ms DESC LIMIT 1 OFFSET ?
"""


@frozen(kw_only=True)
class NextTask:
    """Scheduled task.

    :ivar due_at: when its next attempt is due: seconds since 1970.
    :ivar host: the ``host:port`` of the callback.
    """

    key: Key
    due_at: int
    host: str


@frozen(kw_only=True)
class Upcoming:
    """The next tasks.

    :ivar tasks: scheduled tasks, the earliest due first.
    :ivar is_empty: whether the store has no task at all.
    """

    tasks: Sequence[NextTask]
    is_empty: bool


def upcoming(cursor: Cursor, limit: int) -> Upcoming:
    """Return the next tasks, up to a limit, without those whose stored values are damaged."""
    tasks = [
        NextTask(key=Key(name, at), due_at=due_at, host=host)
        for name, at, due_at, host in cursor.execute(_NEXT, (limit,))
        if is_key(name, at) and type(host) is str and _is_time(due_at)
    ]
    is_empty = not tasks and cursor.execute(_ANY).fetchone() is None
    return Upcoming(tasks=tasks, is_empty=is_empty)


def _is_time(stored: object) -> bool:
    return type(stored) is int and 0 <= stored <= MAX_TIME_MS


@frozen(kw_only=True)
class FailureGroup:
    """Failed tasks with a common reason, and with a common host or beginning of their names.

    :ivar host: their ``host:port``; empty if their hosts differ.
    :ivar prefix: the beginning of their names; empty if the group is by host.
    :ivar reason: the text of their reason; empty for a damaged reason.
    :ivar statuses: the number of tasks by the status of their last response.
    :ivar last_at_ms: when the last of them failed: milliseconds since 1970.
    """

    host: str = ""
    prefix: str = ""
    reason: str
    count: int
    statuses: Mapping[int, int]
    last_at_ms: int


@frozen(kw_only=True)
class FailureGroups:
    """Groups of the last failures, the largest group first.

    :ivar examined: the number of failures in the groups.
    :ivar is_complete: whether these are all failures.
    """

    by_host: Sequence[FailureGroup]
    by_prefix: Sequence[FailureGroup]
    examined: int
    is_complete: bool


def failure_groups(cursor: Cursor, limit: int = MAX_GROUPED) -> FailureGroups:
    """Return the groups of the last failures, without those whose stored values are damaged.

    :param limit: the maximum number of failures.
    """
    alike = [row for row in cursor.execute(_FAILURES, (limit,)) if _is_intact(*row)]
    return FailureGroups(
        by_host=_groups(alike, "host", _HOST),
        by_prefix=_groups(alike, "prefix", _STEM),
        examined=sum(row[_COUNT] for row in alike),
        is_complete=cursor.execute(_ONE_MORE, (limit,)).fetchone() is None,
    )


def _is_intact(host: object, stem: object, reason: object, status: object, *_: object) -> bool:
    return (
        type(host) is type(stem) is str
        and type(reason) in (str, type(None))
        and type(status) in (int, type(None))
    )


def _groups(rows: Sequence[_Row], kind: str, common: int) -> Sequence[FailureGroup]:
    """Return the groups of rows with an equal reason and an equal value of a column.

    :param kind: the attribute of a group that stores the value of the column.
    :param common: the index of the column.
    """
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row[common], row[_REASON] or ""), []).append(row)
    found = [
        FailureGroup(
            **{kind: name},
            reason=reason,
            count=sum(row[_COUNT] for row in alike),
            statuses=_statuses(alike),
            last_at_ms=int(max(row[_LAST_AT_MS] for row in alike)),
        )
        for (name, reason), alike in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, -group.last_at_ms))


def _statuses(rows: Sequence[_Row]) -> Mapping[int, int]:
    """Return the number of tasks by the status of their last response."""
    statuses: Counter[int] = Counter()
    for row in rows:
        if row[_STATUS] is not None:
            statuses[row[_STATUS]] += row[_COUNT]
    return statuses
