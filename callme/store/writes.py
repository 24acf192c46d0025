"""What is written: each function runs inside a transaction, together with others perhaps.

These are the writes that every database behind the port makes in the same way; what each
does in its own is beside its store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve

from ..core import transitions
from ..core.notification import build_notification
from ..core.task import Claim, Definition, Reason, State, Transition, new_task
from ..core.times import MAX_TIMESTAMP, MINUTE, Key, to_ms
from . import reads
from .codec import (
    DEFINITION_COLUMNS,
    CorruptRow,
    Row,
    definition_values,
    on_failure_of,
    to_claim,
    to_definition,
    to_key,
)
from .interface import Cursor, Deleted, DueScan, Put, PutResult, Rescheduled

ToValues = Callable[[Definition], Row]
"""Gives the values of a definition as a database wants them."""

LEASE_MARGIN = 60
"""How many seconds a lease outlasts the longest that its call may take."""
_AT_ONCE = 1000
"""How many tasks one transaction fails as too late."""

_VALUES = ", ".join("?" for _ in (*DEFINITION_COLUMNS.split(", "), "host", "expires_at"))
INSERT = f"""
    INSERT INTO task ({DEFINITION_COLUMNS}, host, expires_at, state, due_at, created_at)
    VALUES ({_VALUES}, 'scheduled', ?, ?)
    ON CONFLICT (task_name, trigger_at) DO NOTHING
"""
# Locked: what is said of it must still be true at the end.
_STANDING = f"""
    SELECT {DEFINITION_COLUMNS}, state FROM task
    WHERE task_name = ? AND trigger_at = ? /* FOR UPDATE */
"""
_REPLACE = f"""
    UPDATE task
    SET ({DEFINITION_COLUMNS}, host, expires_at, due_at) = ({_VALUES}, ?),
        attempts_used = 0, created_at = ?
    WHERE task_name = ? AND trigger_at = ? AND state = 'scheduled'
"""
_TOO_LATE = f"""
    SELECT {DEFINITION_COLUMNS} FROM task
    WHERE state = 'scheduled' AND due_at <= ? AND expires_at <= ? ORDER BY due_at LIMIT ?
    /* FOR UPDATE SKIP LOCKED */
"""
_FAIL = """
    UPDATE task SET state = 'failed', reason = ?, detail = ?, due_at = NULL, finished_at = ?
    WHERE task_name = ? AND trigger_at = ?
"""
_MOVE = """
    UPDATE task
    SET trigger_at = ?, expires_at = ? + 60 * max_delay, due_at = ?, state = 'scheduled',
        reason = NULL, detail = '', attempts_used = 0, finished_at = NULL
    WHERE task_id = ?
"""
_MOVED = "task_name, trigger_at, task_id, state, max_delay, host"
_ONE = f"SELECT {_MOVED} FROM task WHERE task_name = ? AND trigger_at = ? /* FOR UPDATE */"
_OF_NAME = f"SELECT {_MOVED} FROM task WHERE task_name = ? ORDER BY trigger_at /* FOR UPDATE */"
_PURGE = """
    DELETE FROM task WHERE task_id IN (
        SELECT task_id FROM task WHERE finished_at < ? ORDER BY finished_at LIMIT ?
        /* FOR UPDATE SKIP LOCKED */
    )
"""
# One look, however many stand there: minute by minute, thousands would hold up all writes.
_NEXT_FREE = """
    SELECT trigger_at + 60 FROM task AS taken
    WHERE task_name = ? AND trigger_at >= ? AND NOT EXISTS (
        SELECT 1 FROM task
        WHERE task_name = taken.task_name AND trigger_at = taken.trigger_at + 60
    )
    ORDER BY trigger_at LIMIT 1
"""
_RUNNING = "SELECT task_name, trigger_at FROM task WHERE task_name = ? AND state = 'running'"


def put(
    cursor: Cursor,
    definition: Definition,
    now: float,
    create: bool,
    replace: bool,
    to_values: ToValues = definition_values,
) -> PutResult:
    """Create a task, replace a scheduled one, or say what stands there."""
    values = to_values(definition)
    key = (definition.task_name, definition.trigger_at)
    standing = None
    while standing is None:
        if create:
            cursor.execute(INSERT, (*values, definition.trigger_at, to_ms(now)))
            if cursor.rowcount == 1:
                return PutResult(Put.CREATED, new_task(definition, now))
        standing = cursor.execute(_STANDING, key).fetchone()
        if standing is None and not create:
            return PutResult(Put.ABSENT, None)
        # Else another daemon has deleted what was in the way: there is room now.
    if is_same_definition(standing, definition):
        outcome = Put.UNCHANGED
    elif replace and standing[-1] == State.SCHEDULED.value:
        cursor.execute(_REPLACE, (*values, definition.trigger_at, to_ms(now), *key))
        outcome = Put.REPLACED
    else:
        outcome = Put.DIFFERENT
    return PutResult(outcome, reads.get(cursor, definition.key))


def is_same_definition(row: Row, definition: Definition) -> bool:
    """Whether the first columns of a row hold a definition."""
    try:
        return to_definition(row) == definition
    except CorruptRow:
        return False


def due(cursor: Cursor, now: float, to_values: ToValues = definition_values) -> DueScan:
    """Fail what can no longer start, and find the hosts that have tasks due."""
    second = int(now)
    late = cursor.execute(_TOO_LATE, (second, second, _AT_ONCE)).fetchall()
    for row in late:
        try:
            transition = transitions.too_late(to_definition(row))
        except CorruptRow as error:
            transition = _broken(error)
        _fail(cursor, row, transition, now, to_values)
    return DueScan(
        reads.waiting(cursor, now), [to_key(row) for row in late], more=len(late) == _AT_ONCE
    )


def _broken(error: CorruptRow) -> Transition:
    return Transition(
        state=State.FAILED, reason=Reason.CONNECTION_FAILED, detail=f"no request was made: {error}"
    )


def _fail(
    cursor: Cursor, row: Row, transition: Transition, now: float, to_values: ToValues
) -> None:
    key = to_key(row)
    reason = None if transition.reason is None else transition.reason.value
    cursor.execute(_FAIL, (reason, transition.detail, to_ms(now), key.task_name, key.trigger_at))
    if on_failure_of(row) is not None:
        enqueue_notification(cursor, key, now, to_values)


def enqueue_notification(
    cursor: Cursor, key: Key, now: float, to_values: ToValues = definition_values
) -> None:
    """Put the task that tells of the end of another, which is written already.

    It takes the first free minute from now on: another end of the same task may have been
    told of in this one, and nobody's task is overwritten.
    """
    ended = reads.get(cursor, key)
    made = None if ended is None else build_notification(ended, now)
    while made is not None:
        cursor.execute(INSERT, (*to_values(made), made.trigger_at, to_ms(now)))
        if cursor.rowcount:
            return
        free = cursor.execute(_NEXT_FREE, (made.task_name, made.trigger_at)).fetchone()
        # Where there is none, another daemon has deleted what was in the way.
        made = made if free is None else evolve(made, trigger_at=free[0])


def decode_or_fail(
    cursor: Cursor, rows: Sequence[Row], now: float, to_values: ToValues = definition_values
) -> list[Claim]:
    """Return what can be read of some claims, and fail the rest of them."""
    claims = []
    for row in rows:
        try:
            claims.append(to_claim(row))
        except CorruptRow as error:
            _fail(cursor, row, _broken(error), now, to_values)
    return claims


def delete(cursor: Cursor, key: Key) -> Deleted | None:
    """Forget one task and its attempts, unless it is running."""
    where = "FROM task WHERE task_name = ? AND trigger_at = ?"
    values = (key.task_name, key.trigger_at)
    cursor.execute(f"DELETE {where} AND state != 'running'", values)
    if cursor.rowcount:
        return Deleted(1)
    return Deleted(0, [key]) if cursor.execute(f"SELECT 1 {where}", values).fetchone() else None


def delete_name(cursor: Cursor, task_name: str) -> Deleted | None:
    """Forget all tasks of a name but running ones."""
    cursor.execute("DELETE FROM task WHERE task_name = ? AND state != 'running'", (task_name,))
    count = cursor.rowcount
    running = [to_key(row) for row in cursor.execute(_RUNNING, (task_name,))]
    return Deleted(count, running) if count or running else None


def purge(cursor: Cursor, finished_before: float, limit: int) -> int:
    """Forget some of the tasks that finished before a time, the oldest first."""
    return cursor.execute(_PURGE, (to_ms(finished_before), limit)).rowcount


def reschedule(
    cursor: Cursor, key: Key, trigger_at: int, now: float, include_all_states: bool
) -> Rescheduled | None:
    """Move one task to a new minute."""
    row = cursor.execute(_ONE, (key.task_name, key.trigger_at)).fetchone()
    if row is None:
        return None
    _, _, task_id, state, max_delay, host = row
    if state != State.FAILED.value and not include_all_states:
        advice = "" if state == State.RUNNING.value else ": add all=true to move it"
        return Rescheduled(conflict=f"{key} is {state}, not failed{advice}")
    if state == State.RUNNING.value:
        return Rescheduled(skipped=[(key, state)])
    to = Key(key.task_name, trigger_at)
    if to != key and cursor.execute(_ONE, (to.task_name, to.trigger_at)).fetchone():
        return Rescheduled(conflict=f"another task stands at {to}")
    if now >= trigger_at + MINUTE * max_delay:
        return Rescheduled(skipped=[(key, Reason.TOO_LATE.value)])
    cursor.execute(_MOVE, (trigger_at, trigger_at, trigger_at, task_id))
    return Rescheduled(moved=[(key, to)], hosts=[host])


def reschedule_name(
    cursor: Cursor, task_name: str, trigger_at: int, now: float, include_all_states: bool
) -> Rescheduled | None:
    """Move all tasks of a name, in the order of their times, to free minutes."""
    tasks = cursor.execute(_OF_NAME, (task_name,)).fetchall()
    if not tasks:
        return None
    movable: list[Row] = []
    skipped: list[tuple[Key, str]] = []
    taken = set()
    for row in tasks:
        if _is_movable(row, trigger_at, now, include_all_states):
            movable.append(row)
            continue
        taken.add(row[1])
        if row[3] == State.RUNNING.value:
            skipped.append((to_key(row), State.RUNNING.value))
        elif _is_asked(row, include_all_states):
            skipped.append((to_key(row), Reason.TOO_LATE.value))
    moves: list[tuple[int, int]] = []
    moved: list[tuple[Key, Key]] = []
    minute = trigger_at
    for row in movable:
        while minute in taken:
            minute += MINUTE
        moves.append((minute, row[2]))
        moved.append((to_key(row), Key(task_name, minute)))
        minute += MINUTE
    if minute > MAX_TIMESTAMP + 1:
        return Rescheduled(conflict="there are not enough free minutes before the year 10000")
    # First out of each other's way: no two tasks may share a minute even for a moment.
    cursor.executemany(
        "UPDATE task SET trigger_at = ? WHERE task_id = ?",
        [(-MINUTE * task_id, task_id) for _, task_id in moves],
    )
    cursor.executemany(_MOVE, [(minute, minute, minute, task_id) for minute, task_id in moves])
    return Rescheduled(moved, skipped, hosts=list(dict.fromkeys(row[5] for row in movable)))


def _is_asked(row: Row, include_all_states: bool) -> bool:
    """Whether a reschedule means a task at all."""
    return row[3] == State.FAILED.value or (include_all_states and row[3] != State.RUNNING.value)


def _is_movable(row: Row, trigger_at: int, now: float, include_all_states: bool) -> bool:
    """Whether a task may move to ``trigger_at`` or later, and could start then."""
    return _is_asked(row, include_all_states) and now < trigger_at + MINUTE * row[4]
