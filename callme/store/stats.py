"""Queries for reports: counts, activity, history, forecast, calendar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from ..core.callback_url import host_of
from ..core.task import Definition, Reason, State
from ..core.times import MAX_TIMESTAMP, MINUTE, floor_to_minute
from .codec import (
    KEY,
    MAX_TIME_MS,
    SUMMARY,
    TASK,
    TASK_STATE,
    Columns,
    NamedRow,
    Row,
    to_key,
    to_task,
)
from .interface import (
    MAX_BACKLOG_COUNT,
    MAX_LOADS,
    ActivitySnapshot,
    CalendarData,
    Cursor,
    DueLoad,
    Event,
    Histogram,
    InFlightCall,
    MinuteLoad,
    MinuteOutcomes,
    MinuteSpan,
    PutPreview,
    StartupCounts,
    StoreStats,
)
from .queue import backlog
from .tasks import EXISTS, get

# Counts: each query reads a partial index that contains only the counted tasks.

_SOME_BACKLOG = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?
        ORDER BY due_at LIMIT {MAX_BACKLOG_COUNT}
    ) AS due
"""
_OLDEST = "SELECT min(due_at) FROM task INDEXED BY task_due WHERE state = 'scheduled'"
_SCHEDULED = "SELECT count(*) FROM task INDEXED BY task_due WHERE state = 'scheduled'"
_RUNNING = "SELECT count(*) FROM task INDEXED BY task_running WHERE state = 'running'"
_FINISHED = "SELECT count(*) FROM task INDEXED BY task_finished WHERE finished_at_ms IS NOT NULL"
_FAILED = """
    SELECT reason, count(*) FROM task INDEXED BY task_reason WHERE state = 'failed' GROUP BY reason
"""

# Activity

_IN_FLIGHT_COLUMNS = Columns((*KEY, "host", "last_attempt", "claimed_at_ms", "node"))
_IN_FLIGHT = f"""
    SELECT {_IN_FLIGHT_COLUMNS} FROM task INDEXED BY task_running
    WHERE state = 'running' ORDER BY claimed_at_ms LIMIT ?
"""
_FAILURES = f"""
    SELECT {SUMMARY} FROM task INDEXED BY task_failures
    WHERE state = 'failed' ORDER BY finished_at_ms DESC LIMIT ?
"""

# History

_MINUTE_MS = 1000 * MINUTE
# Two digits are precise enough, and bound the size of the result.
_ROUNDED = """
    CASE WHEN lateness_ms < 100 THEN lateness_ms
         WHEN lateness_ms < 1000 THEN lateness_ms / 10 * 10
         WHEN lateness_ms < 10000 THEN lateness_ms / 100 * 100
         WHEN lateness_ms < 100000 THEN lateness_ms / 1000 * 1000
         ELSE lateness_ms / 10000 * 10000 END
"""
# The lateness is that of the first attempt since a task was put or rescheduled; a task that was too
# late has none. The query reads only the index.
_HISTORY = f"""
    SELECT finished_at_ms / {_MINUTE_MS} AS minute, state, {_ROUNDED} AS lateness, count(*)
    FROM (
        SELECT finished_at_ms, state, first_lateness_ms AS lateness_ms
        FROM task INDEXED BY task_finished WHERE finished_at_ms >= ? AND finished_at_ms < ?
        UNION ALL
        SELECT finished_at_ms, state, lateness_ms
        FROM removed_outcome WHERE finished_at_ms >= ? AND finished_at_ms < ?
    ) AS ended
    GROUP BY 1, 2, 3 ORDER BY 1
"""

# Forecast: these queries read only an index.

_DUE = "FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at"
_DUE_OF_HOST = "FROM task INDEXED BY task_host WHERE state = 'scheduled' AND host = ? AND due_at"
_AT = f"SELECT count(*) {_DUE} = ?"
_AT_OF_HOST = f"SELECT count(*) {_DUE_OF_HOST} = ?"
_BY = f"SELECT count(*) {_DUE} <= ?"
_BY_OF_HOST = f"SELECT count(*) {_DUE_OF_HOST} <= ?"
_BEFORE = f"SELECT count(*) {_DUE} < ?"
_HOST = "SELECT host FROM task WHERE task_name = ? AND trigger_at = ?"
# Stepping from minute to minute and counting each takes half the time of GROUP BY.
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
# The order is that of the index, so that the database needs no sort and no temporary storage.
_LOADS = f"""
    SELECT due_at, count(*), min(expires_at) {_DUE} BETWEEN ? AND ?
    GROUP BY due_at ORDER BY due_at
"""
_LOADS_OF_HOSTS = f"""
    SELECT due_at, host, count(*), min(expires_at) {_DUE} BETWEEN ? AND ? GROUP BY due_at, host
    HAVING count(*) > ? ORDER BY due_at, host LIMIT {MAX_LOADS}
"""

# Calendar

_EVENT_COLUMNS = Columns((*TASK, "rescheduled_at_ms", "attempt_ended_at_ms", "host"))
_EVENT = f"""
    SELECT {SUMMARY}, rescheduled_at_ms, (
        SELECT started_at_ms + coalesce(duration_ms, 0) FROM attempt
        WHERE attempt.task_id = task.task_id AND number = last_attempt
    ), host
    FROM task
"""
_NEXT_SCHEDULED = f"""
    {_EVENT} INDEXED BY task_due WHERE state = 'scheduled' AND due_at < ?
    ORDER BY due_at LIMIT ?
"""
_LAST_FAILED = f"""
    {_EVENT} INDEXED BY task_failures WHERE state = 'failed' AND finished_at_ms >= ?
    ORDER BY finished_at_ms DESC LIMIT ?
"""
_NEXT_SCHEDULED_OF_NAME = f"""
    {_EVENT} WHERE task_name = ? AND state = 'scheduled' AND due_at < ?
    ORDER BY trigger_at LIMIT ?
"""
_LAST_FAILED_OF_NAME = f"""
    {_EVENT} WHERE task_name = ? AND state = 'failed' AND finished_at_ms >= ?
    ORDER BY finished_at_ms DESC LIMIT ?
"""


def store_stats(cursor: Cursor, now: float, *, count: bool = False) -> StoreStats:
    """Return the size of the store and of its backlog, in a few milliseconds.

    :param count: whether to count all tasks too, which takes 40 ms or more for a million tasks.
    """
    now = cursor.current_time(now)
    # An unreadable time sorts last, so it is the oldest only if no other task is due.
    oldest = _time(cursor.execute(_OLDEST).fetchone()[0])
    return StoreStats(
        backlog=_one(cursor, _SOME_BACKLOG, int(now)),
        oldest_due=0.0 if oldest is None else max(0.0, now - oldest),
        size=_one(cursor, cursor.SIZE),
        tasks=task_counts(cursor) if count else None,
    )


def task_counts(cursor: Cursor) -> dict[tuple[State, Reason | None], int]:
    """Return the number of tasks of each state and, for failed tasks, each reason."""
    failed: dict[Reason | None, int] = dict.fromkeys(Reason, 0)
    for reason, count in cursor.execute(_FAILED):
        # Failures with a damaged reason are counted as failures without a reason.
        known = _REASONS.get(reason)
        failed[known] = failed.get(known, 0) + count
    return {
        (State.SCHEDULED, None): _one(cursor, _SCHEDULED),
        (State.RUNNING, None): _one(cursor, _RUNNING),
        (State.SUCCEEDED, None): _one(cursor, _FINISHED) - sum(failed.values()),
    } | {(State.FAILED, reason): count for reason, count in failed.items()}


_OPTIONAL_TEXT = (str, type(None))
"""Types of the stored values of an optional text."""
_REASONS = {reason.value: reason for reason in Reason}


def startup_counts(cursor: Cursor, now: float) -> StartupCounts:
    """Return the counts that a daemon logs when it starts."""
    return StartupCounts(
        scheduled=_one(cursor, _SCHEDULED), due=backlog(cursor, now), running=_one(cursor, _RUNNING)
    )


def _one(cursor: Cursor, query: str, *values: object) -> int:
    return int(cursor.execute(query, values).fetchone()[0])


def recent_activity(cursor: Cursor, limit: int) -> ActivitySnapshot:
    """Return the calls in flight and the latest failures, up to ``limit`` of each."""
    rows = [_IN_FLIGHT_COLUMNS.name(row) for row in cursor.execute(_IN_FLIGHT, (limit,))]
    return ActivitySnapshot(
        running=_one(cursor, _RUNNING),
        in_flight=[
            InFlightCall(
                key=to_key(row),
                host=row["host"],
                number=row["last_attempt"],
                since_ms=row["claimed_at_ms"],
                node=row["node"],
            )
            for row in rows
            if _is_intact_call(row)
        ],
        failures=[to_task(TASK.name(row)) for row in cursor.execute(_FAILURES, (limit,))],
    )


def _is_intact_call(row: NamedRow) -> bool:
    """Return whether the stored values of a call in flight can be read."""
    return (
        type(row["host"]) is str
        and type(row["last_attempt"]) is int
        and _time(row["claimed_at_ms"]) is not None
        and type(row["node"]) in _OPTIONAL_TEXT
    )


def _time(stored: object) -> int | None:
    """Return a stored time; ``None`` if it is missing or cannot be read."""
    return stored if type(stored) is int and 0 <= stored <= MAX_TIME_MS else None


def history(cursor: Cursor, since: int, until: int = MAX_TIMESTAMP) -> Sequence[MinuteOutcomes]:
    """Return the tasks that ended in a period, by minute, without empty minutes.

    Tasks that were later rescheduled or deleted are included. A million tasks take half a second.

    :param since: the start of the period: seconds since 1970.
    :param until: the exclusive end of the period: seconds since 1970.
    """
    rows = cursor.execute(_HISTORY, 2 * (since * 1000, until * 1000))
    return [_outcomes(minute, list(those)) for minute, those in groupby(rows, lambda row: row[0])]


def _outcomes(minute: int, rows: Sequence[tuple[int, str, int | None, int]]) -> MinuteOutcomes:
    lateness: dict[int, int] = {}
    failed = 0
    for _, state, late, count in rows:
        failed += count if state == State.FAILED.value else 0
        # A task without an attempt has none, and another program may have damaged one.
        if type(late) is int:
            lateness[late] = lateness.get(late, 0) + count
    succeeded = sum(count for *_, count in rows) - failed
    return MinuteOutcomes(
        minute=minute * MINUTE,
        succeeded=succeeded,
        failed=failed,
        lateness_ms=Histogram.of(lateness),
    )


def preview_put(
    cursor: Cursor, definitions: Sequence[Definition], now: float
) -> Sequence[PutPreview]:
    """Return the existing task and the number of simultaneous calls for each definition.

    A task whose minute has begun is due together with all other due tasks.
    """
    now = cursor.current_time(now)
    counts: dict[tuple[Any, ...], int] = {}

    def count(statement: str, *values: Any) -> int:
        # The counts are cached, because many tasks of one request may have the same minute.
        query = (statement, *values)
        if query not in counts:
            counts[query] = _one(cursor, statement, *values)
        return counts[query]

    found = []
    for definition in definitions:
        host = host_of(definition.callback)
        begun = definition.trigger_at <= now
        minute = int(now) if begun else definition.trigger_at
        calls = count(_BY if begun else _AT, minute)
        to_host = count(_BY_OF_HOST if begun else _AT_OF_HOST, host, minute)
        existing = get(cursor, definition.key)
        due_at = None if existing is None else existing.due_at
        if existing is not None and due_at is not None:
            counted = due_at <= minute if begun else due_at == minute
            calls -= counted
            to_host -= counted and _host(cursor, definition) == host
        found.append(PutPreview(existing=existing, calls=calls, calls_to_host=to_host))
    return found


def _host(cursor: Cursor, definition: Definition) -> str:
    """Return the stored host of the task under a key, whose callback may be corrupt."""
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
    """Return the calls due in a period, in one snapshot.

    A million tasks take about 60 ms, and 0.1 s more for each span that is read in detail.

    :param begin: the first minute: seconds since 1970; tasks due earlier are counted in it.
    :param until: the exclusive end of the period: seconds since 1970.
    :param find_saturated: returns the span whose calls to all hosts are read with their deadlines,
        given the number of calls by minute.
    :param busy_above: the number of calls to one host in a minute above which the calls to that
        host are read separately.
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
    """Return the first and the last minute with more than a number of calls."""
    # The calls to one host in a minute are at most the calls to all hosts.
    found = [minute for minute, calls in calls_by_minute.items() if calls > more_than]
    return (found[0], found[-1]) if found else None


def _from(begin: int, span: MinuteSpan) -> MinuteSpan:
    """Extend a span that starts at ``begin`` to all tasks due before it."""
    first, last = span
    return (0 if first == begin else first, last)


def due_counts_by_minute(cursor: Cursor, begin: int, until: int) -> Mapping[int, int]:
    """Return the number of due tasks by minute, in order, without empty minutes.

    :param begin: the first minute: seconds since 1970; tasks due earlier are counted in it.
    :param until: the exclusive end of the period: seconds since 1970.
    """
    (before,) = cursor.execute(_BEFORE, (begin,)).fetchone()
    found = dict(sorted(cursor.execute(_AHEAD, (begin, until, until)).fetchall()))
    return {begin: before + found.pop(begin, 0), **found} if before else found


def load_by_minute(cursor: Cursor, first: int, last: int) -> Sequence[MinuteLoad]:
    """Return the calls to all hosts due from ``first`` to ``last`` (seconds since 1970)."""
    rows = cursor.execute(_LOADS, (first, last)).fetchall()
    return _by_minute((due_at, None, calls, expires_at) for due_at, calls, expires_at in rows)


def _by_minute(rows: Iterable[tuple[int, str | None, int, int]]) -> Sequence[MinuteLoad]:
    """Sum the calls by minute and host, because a retry may be due at any second."""
    loads: dict[tuple[int, str | None], MinuteLoad] = {}
    for due_at, host, calls, expires_at in rows:
        if (
            type(due_at) is not int
            or type(expires_at) is not int
            or type(host) not in _OPTIONAL_TEXT
        ):
            # Another program has damaged the row.
            continue
        minute = floor_to_minute(due_at)
        other = loads.get((minute, host))
        loads[minute, host] = MinuteLoad(
            minute=minute,
            host=host,
            calls=calls + (0 if other is None else other.calls),
            expires_at=expires_at if other is None else min(expires_at, other.expires_at),
        )
    return list(loads.values())


def load_by_minute_and_host(
    cursor: Cursor, first: int, last: int, more_than: int
) -> Sequence[MinuteLoad]:
    """Return the calls due from ``first`` to ``last`` to hosts with many calls in a minute.

    :param more_than: the number of calls in a minute that a host must exceed; at most
        :data:`MAX_LOADS` loads are returned, the earliest first.
    """
    rows = cursor.execute(_LOADS_OF_HOSTS, (first, last, more_than)).fetchall()
    return _by_minute(rows)


def calendar(
    cursor: Cursor, task_name: str | None, *, until: int, failed_since: int, limit: int
) -> CalendarData | None:
    """Return the events of a calendar; ``None`` for a name that has no task.

    :param until: only scheduled tasks due before this time: seconds since 1970.
    :param failed_since: only tasks that failed at this time or later: seconds since 1970.
    :param limit: the maximum number of scheduled tasks, and of failed ones.
    """
    since, most = failed_since * 1000, limit + 1
    if task_name is None:
        scheduled = cursor.execute(_NEXT_SCHEDULED, (until, most)).fetchall()
        failed = cursor.execute(_LAST_FAILED, (since, most)).fetchall()
    elif cursor.execute(EXISTS, (task_name,)).fetchone() is None:
        return None
    else:
        scheduled = cursor.execute(_NEXT_SCHEDULED_OF_NAME, (task_name, until, most)).fetchall()
        failed = cursor.execute(_LAST_FAILED_OF_NAME, (task_name, since, most)).fetchall()
    events = [_intact_events(rows[:limit]) for rows in (scheduled, failed)]
    return CalendarData(
        scheduled=events[0],
        failed=events[1],
        more_scheduled=len(scheduled) > limit and bool(events[0]),
        more_failed=len(failed) > limit and bool(events[1]),
    )


def _intact_events(rows: Iterable[Row]) -> list[Event]:
    """Return the events in some rows, without those whose necessary columns are damaged."""
    events = (_event(_EVENT_COLUMNS.name(row)) for row in rows)
    return [
        event
        for event in events
        if _NEEDED.isdisjoint(event.task.damaged) and type(event.host) is str
    ]


_NEEDED = frozenset({"task_name", "trigger_at", "callback_method", "retry", *TASK_STATE})
"""Columns of a task that its event displays or depends on."""


def _event(named: NamedRow) -> Event:
    task = to_task(named)
    planned_at_ms = max(task.created_at_ms, _time(named["rescheduled_at_ms"]) or 0)
    ended_at_ms = max(_time(named["attempt_ended_at_ms"]) or 0, task.finished_at_ms or 0)
    return Event(
        task=task,
        planned_at_ms=planned_at_ms,
        changed_at_ms=max(planned_at_ms, ended_at_ms),
        host=named["host"],
    )
