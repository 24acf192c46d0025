"""What is read of what lies ahead: see :mod:`callme.store.reads`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.callback_url import host_of
from ..core.task import Definition
from . import reads
from .interface import MAX_LOADS, Cursor, DueLoad, MinuteLoad, MinuteSpan, PutPreview

# These read an index alone, and none of the tasks.
_DUE = "FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at"
_DUE_OF_HOST = "FROM task INDEXED BY task_host WHERE state = 'scheduled' AND host = ? AND due_at"
_AT = f"SELECT count(*) {_DUE} = ?"
_AT_OF_HOST = f"SELECT count(*) {_DUE_OF_HOST} = ?"
_BY = f"SELECT count(*) {_DUE} <= ?"
_BY_OF_HOST = f"SELECT count(*) {_DUE_OF_HOST} <= ?"
_BEFORE = f"SELECT count(*) {_DUE} < ?"
_HOST = "SELECT host FROM task WHERE task_name = ? AND trigger_at = ?"
# From minute to minute, and to count within each, takes half the time that GROUP BY does.
_AHEAD = f"""
    WITH RECURSIVE ahead (minute) AS (
        SELECT min(due_at) / 60 * 60 {_DUE} >= ? AND due_at < ?
        UNION ALL
        SELECT (SELECT min(due_at) / 60 * 60 {_DUE} >= minute + 60 AND due_at < ?)
        FROM ahead WHERE minute IS NOT NULL
    )
    SELECT minute, (SELECT count(*) {_DUE} >= minute AND due_at < minute + 60)
    FROM ahead WHERE minute IS NOT NULL
"""
# In the order of the index, so that nothing is sorted, and no more kept than is returned.
_LOADS = f"""
    SELECT due_at, count(*), min(expires_at) {_DUE} BETWEEN ? AND ?
    GROUP BY due_at ORDER BY due_at
"""
_LOADS_OF_HOSTS = f"""
    SELECT due_at, host, count(*), min(expires_at) {_DUE} BETWEEN ? AND ? GROUP BY due_at, host
    HAVING count(*) > ? ORDER BY due_at, host LIMIT {MAX_LOADS}
"""


def beside(cursor: Cursor, definitions: Sequence[Definition], now: float) -> Sequence[PutPreview]:
    """Say of each task what stands in its place, and what is due in the same minute."""
    counts: dict[tuple[Any, ...], int] = {}

    def count(statement: str, *values: Any) -> int:
        # Many tasks of one request may be of one minute.
        asked = (statement, *values)
        if asked not in counts:
            counts[asked] = int(cursor.execute(statement, values).fetchone()[0])
        return counts[asked]

    found = []
    for definition in definitions:
        host = host_of(definition.callback)
        begun = definition.trigger_at <= now
        minute = int(now) if begun else definition.trigger_at
        calls = count(_BY if begun else _AT, minute)
        to_host = count(_BY_OF_HOST if begun else _AT_OF_HOST, host, minute)
        standing = reads.get(cursor, definition.key)
        due_at = None if standing is None else standing.due_at
        if standing is not None and due_at is not None:
            counted = due_at <= minute if begun else due_at == minute
            calls -= counted
            to_host -= counted and _host(cursor, definition) == host
        found.append(PutPreview(standing, calls, to_host))
    return found


def _host(cursor: Cursor, definition: Definition) -> str:
    """Return the host of what stands in a task's place: its callback may be broken."""
    host: str = cursor.execute(_HOST, (definition.task_name, definition.trigger_at)).fetchone()[0]
    return host


def due_load(
    cursor: Cursor,
    begin: int,
    until: int,
    *,
    find_saturated: Callable[[Mapping[int, int]], MinuteSpan | None],
    busy_above: int,
) -> DueLoad:
    """Return the calls due in a period, all of them read at one moment.

    It takes about 60 ms for a million tasks, and 0.1 s more for each span that is read in detail.

    :param begin: the first minute, seconds since 1970; earlier due tasks count as due in it.
    :param until: the end of the period, seconds since 1970, exclusive.
    :param find_saturated: returns the first and the last minute whose calls to all hosts are
        read with their deadlines, given the number of calls by minute.
    :param busy_above: calls to one host in a minute above which they are read on their own.
    """
    by_minute = due_counts_by_minute(cursor, begin, until)
    saturated, busy = find_saturated(by_minute), span_above(by_minute, busy_above)
    return DueLoad(
        by_minute=by_minute,
        fleet=[] if saturated is None else load_by_minute(cursor, *_from(begin, saturated)),
        hosts=[]
        if busy is None
        else load_by_minute_and_host(cursor, *_from(begin, busy), more_than=busy_above),
    )


def span_above(calls_by_minute: Mapping[int, int], more_than: int) -> MinuteSpan | None:
    """Return the first and the last minute with more than this many calls."""
    # No host has more calls in a minute than all hosts have.
    found = [minute for minute, calls in calls_by_minute.items() if calls > more_than]
    return (found[0], found[-1]) if found else None


def _from(begin: int, span: MinuteSpan) -> MinuteSpan:
    """Extend a span that starts at ``begin`` to all tasks due before it."""
    first, last = span
    return (0 if first == begin else first, last)


def due_counts_by_minute(cursor: Cursor, begin: int, until: int) -> Mapping[int, int]:
    """Return the number of due tasks of each minute that has any, in order.

    :param begin: the first minute, seconds since 1970; earlier due tasks count as due in it.
    :param until: the end of the period, seconds since 1970, exclusive.
    """
    (before,) = cursor.execute(_BEFORE, (begin,)).fetchone()
    found = dict(sorted(cursor.execute(_AHEAD, (begin, until, until)).fetchall()))
    return {begin: before + found.pop(begin, 0), **found} if before else found


def load_by_minute(cursor: Cursor, first: int, last: int) -> Sequence[MinuteLoad]:
    """Return the calls to all hosts due from ``first`` to ``last`` (seconds since 1970)."""
    rows = cursor.execute(_LOADS, (first, last)).fetchall()
    return [MinuteLoad(due_at, None, calls, expires) for due_at, calls, expires in rows]


def load_by_minute_and_host(
    cursor: Cursor, first: int, last: int, more_than: int
) -> Sequence[MinuteLoad]:
    """Return the calls due from ``first`` to ``last`` of hosts with many of them in a minute.

    :param more_than: the number of calls in a minute that a host must exceed; at most
        :data:`MAX_LOADS` loads are returned, the earliest first.
    """
    rows = cursor.execute(_LOADS_OF_HOSTS, (first, last, more_than)).fetchall()
    return [MinuteLoad(*row) for row in rows]
