"""What is written in SQLite's own way: claims, records, many tasks at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from ...core.notification import notification_url
from ...core.task import Claim, Definition, State, Transition
from ...core.times import to_ms
from ..codec import (
    ATTEMPT_COLUMNS,
    CLAIM_COLUMNS,
    DEFINITION_COLUMNS,
    attempt_values,
    definition_values,
)
from ..interface import Put, PutResult
from ..writes import INSERT, LEASE_MARGIN, decode_or_fail, enqueue_notification, put

_CLAIM = f"""
    UPDATE task
    SET state = 'running', due_at = NULL, claimed_at = ?, lease_until = ? + timeout, node = ?,
        attempts_used = attempts_used + 1, last_attempt = last_attempt + 1
    WHERE task_id IN (
        SELECT task_id FROM task
        WHERE state = 'scheduled' AND host = ? AND due_at <= ? AND expires_at > ?
        ORDER BY due_at, task_id LIMIT ?
    )
    RETURNING {DEFINITION_COLUMNS}, {CLAIM_COLUMNS}
"""
_CLAIMS = f"SELECT {DEFINITION_COLUMNS}, {CLAIM_COLUMNS} FROM task WHERE state = 'running'"
_RECORD = """
    UPDATE task
    SET state = ?, reason = ?, detail = ?, due_at = ?, finished_at = ?, lease_until = NULL,
        attempts_used = attempts_used - ?, last_attempt = last_attempt - ?
    WHERE task_id = ? AND last_attempt = ? AND state = 'running'
"""
_ATTEMPT = f"INSERT INTO attempt (task_id, {ATTEMPT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def put_many(
    cursor: sqlite3.Cursor, tasks: Sequence[tuple[Definition, bool]], now: float
) -> Sequence[PutResult]:
    """Create many tasks in one statement or, where that is not all there is to do, in many."""
    if all(create for _, create in tasks):
        ms = to_ms(now)
        rows = [(*definition_values(one), one.trigger_at, ms) for one, _ in tasks]
        cursor.execute("SAVEPOINT many")
        cursor.executemany(INSERT, rows)
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


def claim(
    cursor: sqlite3.Cursor, shares: Mapping[str, int], now: float, node: str
) -> Sequence[Claim]:
    """Take due tasks, the longest due first, up to a number for each host."""
    claims: list[Claim] = []
    for host, share in shares.items():
        taken = cursor.execute(
            _CLAIM, (to_ms(now), int(now) + LEASE_MARGIN, node, host, now, now, share)
        ).fetchall()
        claims += decode_or_fail(cursor, taken, now)
    # RETURNING promises no order.
    claims.sort(key=lambda one: (one.definition.trigger_at, one.task_id))
    return claims


def abandoned(cursor: sqlite3.Cursor, now: float, every: bool) -> Sequence[Claim]:
    """Return the claims whose lease has ended, or every claim."""
    if every:
        rows = cursor.execute(_CLAIMS).fetchall()
    else:
        rows = cursor.execute(f"{_CLAIMS} AND lease_until <= ?", (now,)).fetchall()
    return decode_or_fail(cursor, rows, now)


def record(cursor: sqlite3.Cursor, claim: Claim, transition: Transition, now: float) -> bool:
    """Store what became of a claimed task, unless the claim is no longer held."""
    unspent = transition.attempt is None
    cursor.execute(
        _RECORD,
        (
            transition.state.value,
            None if transition.reason is None else transition.reason.value,
            transition.detail,
            transition.due_at,
            None if transition.state is State.SCHEDULED else to_ms(now),
            unspent,
            unspent,
            claim.task_id,
            claim.number,
        ),
    )
    if cursor.rowcount == 0:
        return False
    if (attempt := transition.attempt) is not None:
        cursor.execute(_ATTEMPT, (claim.task_id, *attempt_values(attempt)))
    if notification_url(claim.definition, transition) is not None:
        enqueue_notification(cursor, claim.definition.key, now)
    return True
