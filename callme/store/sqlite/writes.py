"""What is written: each function runs inside a transaction, together with others perhaps."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from ...core import policy
from ...core.task import Claim, Definition, Reason, State, Task, Verdict
from ...core.trigger import LAST_SECOND, MINUTE, Key
from ..port import Deleted, Due, Put, PutResult, Rescheduled
from . import reads
from .rows import (
    CLAIM,
    DEFINITION,
    BrokenRow,
    Row,
    definition_values,
    to_claim,
    to_definition,
    to_key,
)

LEASE_MARGIN = 60
"""How many seconds a lease outlasts the longest that its call may take."""
_AT_ONCE = 1000
"""How many tasks one transaction fails as too late."""

_INSERT = f"""
    INSERT INTO task ({DEFINITION}, host, expires_at, state, due_at, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'scheduled', ?, ?)
    ON CONFLICT (task_name, trigger_at) DO NOTHING
"""
_STANDING = f"SELECT {DEFINITION}, state FROM task WHERE task_name = ? AND trigger_at = ?"
_REPLACE = f"""
    UPDATE task
    SET ({DEFINITION}, host, expires_at, due_at) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
        attempts_used = 0, created_at = ?
    WHERE task_name = ? AND trigger_at = ? AND state = 'scheduled'
"""
# Left to itself SQLite would read the whole of task_host, which is in the order of hosts.
_HOSTS = """
    SELECT DISTINCT host FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?
"""
_TOO_LATE = f"""
    SELECT {DEFINITION} FROM task
    WHERE state = 'scheduled' AND due_at <= ? AND expires_at <= ? LIMIT ?
"""
_FAIL = """
    UPDATE task SET state = 'failed', reason = ?, detail = ?, due_at = NULL, finished_at = ?
    WHERE task_name = ? AND trigger_at = ?
"""
_CLAIM = f"""
    UPDATE task
    SET state = 'running', due_at = NULL, claimed_at = ?, lease_until = ? + timeout,
        attempts_used = attempts_used + 1, last_attempt = last_attempt + 1
    WHERE task_id IN (
        SELECT task_id FROM task
        WHERE state = 'scheduled' AND host = ? AND due_at <= ? AND expires_at > ?
        ORDER BY due_at, task_id LIMIT ?
    )
    RETURNING {DEFINITION}, {CLAIM}
"""
_CLAIMS = f"SELECT {DEFINITION}, {CLAIM} FROM task WHERE state = 'running'"
_RECORD = """
    UPDATE task
    SET state = ?, reason = ?, detail = ?, due_at = ?, finished_at = ?, lease_until = NULL,
        attempts_used = attempts_used - ?, last_attempt = last_attempt - ?
    WHERE task_id = ? AND last_attempt = ? AND state = 'running'
"""
_ATTEMPT = """
    INSERT INTO attempt
        (task_id, number, started_at, lateness_ms, duration_ms, status, reason, detail, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOVE = """
    UPDATE task
    SET trigger_at = ?, expires_at = ? + 60 * max_delay, due_at = ?, state = 'scheduled',
        reason = NULL, detail = '', attempts_used = 0, finished_at = NULL
    WHERE task_id = ?
"""
_MOVED = "task_name, trigger_at, task_id, state, max_delay, host"
_ONE = f"SELECT {_MOVED} FROM task WHERE task_name = ? AND trigger_at = ?"
_OF_NAME = f"SELECT {_MOVED} FROM task WHERE task_name = ? ORDER BY trigger_at"
_PURGE = """
    DELETE FROM task WHERE task_id IN (
        SELECT task_id FROM task WHERE finished_at < ? ORDER BY finished_at LIMIT ?
    )
"""
_RUNNING = "SELECT task_name, trigger_at FROM task WHERE task_name = ? AND state = 'running'"


def put(
    cursor: sqlite3.Cursor, definition: Definition, now: float, create: bool, replace: bool
) -> PutResult:
    """Create a task, replace a scheduled one, or say what stands there."""
    values = definition_values(definition)
    if create:
        cursor.execute(_INSERT, (*values, definition.trigger_at, _ms(now)))
        if cursor.rowcount == 1:
            return PutResult(Put.CREATED, _created(definition, now))
    key = (definition.task_name, definition.trigger_at)
    standing = cursor.execute(_STANDING, key).fetchone()
    if standing is None:
        return PutResult(Put.ABSENT, None)
    if _same(standing, definition):
        outcome = Put.UNCHANGED
    elif replace and standing[-1] == State.SCHEDULED.value:
        cursor.execute(_REPLACE, (*values, definition.trigger_at, _ms(now), *key))
        outcome = Put.REPLACED
    else:
        outcome = Put.DIFFERENT
    return PutResult(outcome, reads.get(cursor, definition.key))


def put_many(
    cursor: sqlite3.Cursor, tasks: Sequence[tuple[Definition, bool]], now: float
) -> Sequence[PutResult]:
    """Create many tasks in one statement or, where that is not all there is to do, in many."""
    if all(create for _, create in tasks):
        ms = _ms(now)
        rows = [(*definition_values(one), one.trigger_at, ms) for one, _ in tasks]
        cursor.execute("SAVEPOINT many")
        cursor.executemany(_INSERT, rows)
        all_new = cursor.rowcount == len(rows)
        if not all_new:
            cursor.execute("ROLLBACK TO many")
        cursor.execute("RELEASE many")
        if all_new:
            return [_NEW] * len(rows)
    return [_put_one(cursor, one, now, create) for one, create in tasks]


_NEW = PutResult(Put.CREATED, None)


def _put_one(cursor: sqlite3.Cursor, definition: Definition, now: float, create: bool) -> PutResult:
    result = put(cursor, definition, now, create, replace=False)
    return _NEW if result.put is Put.CREATED else result


def _created(definition: Definition, now: float) -> Task:
    return Task(
        definition=definition,
        state=State.SCHEDULED,
        reason=None,
        detail="",
        due_at=definition.trigger_at,
        attempts_used=0,
        created_at=_ms(now),
        finished_at=None,
        attempts=(),
    )


def _same(row: Row, definition: Definition) -> bool:
    try:
        return to_definition(row) == definition
    except BrokenRow:
        return False


def due(cursor: sqlite3.Cursor, now: float) -> Due:
    """Fail what can no longer start, and find the hosts that have tasks due."""
    late = cursor.execute(_TOO_LATE, (now, now, _AT_ONCE)).fetchall()
    for row in late:
        try:
            verdict = policy.too_late(to_definition(row))
        except BrokenRow as error:
            verdict = _broken(error)
        _fail(cursor, to_key(row), verdict, now)
    hosts = [host for (host,) in cursor.execute(_HOSTS, (now,))]
    return Due(hosts, [to_key(row) for row in late], more=len(late) == _AT_ONCE)


def claim(cursor: sqlite3.Cursor, shares: Mapping[str, int], now: float) -> Sequence[Claim]:
    """Take due tasks, the longest due first, up to a number for each host."""
    claims: list[Claim] = []
    for host, share in shares.items():
        taken = cursor.execute(
            _CLAIM, (_ms(now), int(now) + LEASE_MARGIN, host, now, now, share)
        ).fetchall()
        claims += _readable(cursor, taken, now)
    # RETURNING promises no order.
    claims.sort(key=lambda one: (one.definition.trigger_at, one.task_id))
    return claims


def _broken(error: BrokenRow) -> Verdict:
    return Verdict(State.FAILED, Reason.CONNECTION_FAILED, f"no request was made: {error}")


def _fail(cursor: sqlite3.Cursor, key: Key, verdict: Verdict, now: float) -> None:
    reason = None if verdict.reason is None else verdict.reason.value
    cursor.execute(_FAIL, (reason, verdict.detail, _ms(now), key.task_name, key.trigger_at))


def abandoned(cursor: sqlite3.Cursor, now: float, every: bool) -> Sequence[Claim]:
    """Return the claims whose lease has ended, or every claim."""
    if every:
        rows = cursor.execute(_CLAIMS).fetchall()
    else:
        rows = cursor.execute(f"{_CLAIMS} AND lease_until <= ?", (now,)).fetchall()
    return _readable(cursor, rows, now)


def _readable(cursor: sqlite3.Cursor, rows: Sequence[Row], now: float) -> list[Claim]:
    """Return what can be read of some claims, and fail the rest of them."""
    claims = []
    for row in rows:
        try:
            claims.append(to_claim(row))
        except BrokenRow as error:
            _fail(cursor, to_key(row), _broken(error), now)
    return claims


def record(cursor: sqlite3.Cursor, claim: Claim, verdict: Verdict, now: float) -> bool:
    """Store what became of a claimed task, unless the claim is no longer held."""
    unspent = verdict.attempt is None
    cursor.execute(
        _RECORD,
        (
            verdict.state.value,
            None if verdict.reason is None else verdict.reason.value,
            verdict.detail,
            verdict.due_at,
            None if verdict.state is State.SCHEDULED else _ms(now),
            unspent,
            unspent,
            claim.task_id,
            claim.number,
        ),
    )
    if cursor.rowcount == 0:
        return False
    if (attempt := verdict.attempt) is not None:
        cursor.execute(
            _ATTEMPT,
            (
                claim.task_id,
                attempt.number,
                attempt.started_at,
                attempt.lateness_ms,
                attempt.duration_ms,
                attempt.status,
                None if attempt.reason is None else attempt.reason.value,
                attempt.detail,
                attempt.body,
            ),
        )
    return True


def delete(cursor: sqlite3.Cursor, key: Key) -> Deleted | None:
    """Forget one task and its attempts, unless it is running."""
    where = "FROM task WHERE task_name = ? AND trigger_at = ?"
    values = (key.task_name, key.trigger_at)
    cursor.execute(f"DELETE {where} AND state != 'running'", values)
    if cursor.rowcount:
        return Deleted(1)
    return Deleted(0, [key]) if cursor.execute(f"SELECT 1 {where}", values).fetchone() else None


def delete_name(cursor: sqlite3.Cursor, task_name: str) -> Deleted | None:
    """Forget all tasks of a name but running ones."""
    cursor.execute("DELETE FROM task WHERE task_name = ? AND state != 'running'", (task_name,))
    count = cursor.rowcount
    running = [to_key(row) for row in cursor.execute(_RUNNING, (task_name,))]
    return Deleted(count, running) if count or running else None


def purge(cursor: sqlite3.Cursor, finished_before: float, limit: int) -> int:
    """Forget some of the tasks that finished before a time, the oldest first."""
    return cursor.execute(_PURGE, (_ms(finished_before), limit)).rowcount


def reschedule(
    cursor: sqlite3.Cursor, key: Key, trigger_at: int, now: float, every_state: bool
) -> Rescheduled | None:
    """Move one task to a new minute."""
    row = cursor.execute(_ONE, (key.task_name, key.trigger_at)).fetchone()
    if row is None:
        return None
    _, _, task_id, state, max_delay, host = row
    if state != State.FAILED.value and not every_state:
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
    cursor: sqlite3.Cursor, task_name: str, trigger_at: int, now: float, every_state: bool
) -> Rescheduled | None:
    """Move all tasks of a name, in the order of their times, to free minutes."""
    tasks = cursor.execute(_OF_NAME, (task_name,)).fetchall()
    if not tasks:
        return None
    movable: list[Row] = []
    skipped: list[tuple[Key, str]] = []
    taken = set()
    for row in tasks:
        if _is_movable(row, trigger_at, now, every_state):
            movable.append(row)
            continue
        taken.add(row[1])
        if row[3] == State.RUNNING.value:
            skipped.append((to_key(row), State.RUNNING.value))
        elif _is_asked(row, every_state):
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
    if minute > LAST_SECOND + 1:
        return Rescheduled(conflict="there are not enough free minutes before the year 10000")
    # First out of each other's way: no two tasks may share a minute even for a moment.
    cursor.executemany(
        "UPDATE task SET trigger_at = ? WHERE task_id = ?",
        [(-MINUTE * task_id, task_id) for _, task_id in moves],
    )
    cursor.executemany(_MOVE, [(minute, minute, minute, task_id) for minute, task_id in moves])
    return Rescheduled(moved, skipped, hosts=list(dict.fromkeys(row[5] for row in movable)))


def _is_asked(row: Row, every_state: bool) -> bool:
    """Whether a reschedule means a task at all."""
    return row[3] == State.FAILED.value or (every_state and row[3] != State.RUNNING.value)


def _is_movable(row: Row, trigger_at: int, now: float, every_state: bool) -> bool:
    """Whether a task may move to ``trigger_at`` or later, and could start then."""
    return _is_asked(row, every_state) and now < trigger_at + MINUTE * row[4]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
