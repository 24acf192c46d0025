"""Queries for what happens next and what went wrong: the next tasks, and failures in groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from attrs import frozen

from ...core.times import Key, is_key
from ..codec import MAX_TIME_MS
from ..interface import Cursor

_Row = tuple[Any, ...]
_NAME, _HOST, _REASON, _STATUS, _FINISHED_AT_MS = range(5)
"""The places of the columns of a failure."""

MAX_GROUPED = 10_000
"""Maximum number of failures that are put into groups: about 50 ms."""

_NEXT = """
    SELECT task_name, trigger_at, due_at, host FROM task INDEXED BY task_due
    WHERE state = 'scheduled' ORDER BY due_at LIMIT ?
"""
_ANY = "SELECT 1 FROM task LIMIT 1"
_FAILURES = """
    SELECT task_name, host, failed.reason, attempt.status, finished_at_ms
    FROM (
        SELECT task_id, task_name, host, reason, last_attempt, finished_at_ms
        FROM task INDEXED BY task_failures
        WHERE state = 'failed' ORDER BY finished_at_ms DESC LIMIT ?
    ) AS failed
    LEFT JOIN attempt ON failed.reason = 'unexpected_status'
        AND attempt.task_id = failed.task_id AND attempt.number = failed.last_attempt
    ORDER BY finished_at_ms DESC
"""
# The beginning of a name up to its first separator, or else up to its last digits.
_STEM = re.compile(r"[^.:_-]+[.:_-]|.*?(?=[0-9]*$)", re.DOTALL)


@frozen(kw_only=True)
class NextTask:
    """A scheduled task.

    :ivar due_at: when its next attempt is due, seconds since 1970.
    :ivar host: the ``host:port`` that it calls.
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
    """Return the next tasks, up to a number; without those whose stored values are damaged."""
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
    """Failed tasks that have a host, or the beginning of their names, and a reason in common.

    :ivar host: their ``host:port``; empty for tasks of any host.
    :ivar prefix: the beginning of their names; empty for any names.
    :ivar reason: the text of their reason; empty for a damaged one.
    :ivar statuses: the number of tasks by the status of their last response.
    :ivar last_at_ms: when the last of them failed, milliseconds since 1970.
    """

    host: str = ""
    prefix: str = ""
    reason: str
    count: int
    statuses: Mapping[int, int]
    last_at_ms: int


@frozen(kw_only=True)
class FailureGroups:
    """The last failures in groups, the largest group first.

    :ivar examined: the number of failures.
    :ivar is_complete: whether there are no more failures than these.
    """

    by_host: Sequence[FailureGroup]
    by_prefix: Sequence[FailureGroup]
    examined: int
    is_complete: bool


def failure_groups(cursor: Cursor, limit: int = MAX_GROUPED) -> FailureGroups:
    """Return the last failures in groups, without those whose stored values are damaged.

    :param limit: the maximum number of failures.
    """
    rows = cursor.execute(_FAILURES, (limit + 1,)).fetchall()
    failures = [row for row in rows[:limit] if _is_intact(*row)]
    return FailureGroups(
        by_host=_groups(failures, "host", itemgetter(_HOST)),
        by_prefix=_groups(failures, "prefix", lambda row: stem(row[_NAME])),
        examined=len(failures),
        is_complete=len(rows) <= limit,
    )


def _is_intact(
    name: object, host: object, reason: object, status: object, finished_at_ms: object
) -> bool:
    return (
        type(name) is type(host) is str
        and type(reason) in (str, type(None))
        and type(status) in (int, type(None))
        and _is_time(finished_at_ms)
    )


def stem(task_name: str) -> str:
    """Return the beginning that a name may share with those of similar tasks."""
    found = _STEM.match(task_name)
    return found[0] if found and found[0] else task_name


def _groups(
    rows: Sequence[_Row], kind: str, common: Callable[[_Row], str]
) -> Sequence[FailureGroup]:
    """Return the groups of rows, the latest first, that have ``common`` and the reason in common.

    :param kind: the attribute of a group that has what is common.
    """
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((common(row), row[_REASON] or ""), []).append(row)
    found = [
        FailureGroup(
            **{kind: name},
            reason=reason,
            count=len(members),
            statuses=Counter(row[_STATUS] for row in members if row[_STATUS] is not None),
            last_at_ms=members[0][_FINISHED_AT_MS],
        )
        for (name, reason), members in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)
