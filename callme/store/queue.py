"""Operations on the queue of due tasks: expire, claim, record, take over orphans, purge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.callback_url import host_of
from ..core.notification import build_notification, notification_url
from ..core.task import MAX_ATTEMPTS, Claim, Definition, State, Transition
from ..core.times import Key, to_ms
from ..core.transitions import too_late, unreadable
from ..errors import InvalidValue
from .changes import Changes, TaskTransition
from .codec import (
    ATTEMPT,
    CLAIM,
    DEFINITION,
    MAX_NUMBER,
    Columns,
    CorruptRow,
    NamedRow,
    Row,
    attempt_values,
    to_claim,
    to_definition,
    to_key,
)
from .database import Write
from .interface import Cursor, DueScan
from .tasks import INSERT, get

LEASE_MARGIN = 60
"""Seconds by which a lease outlasts the maximum duration of its call."""
OUTCOMES_PER_TASK = 20
"""Outcomes of removed tasks, which are small, that a purge deletes for each task of its limit."""
_EXPIRE_LIMIT = 1000
"""Maximum number of tasks that one transaction fails as too late."""

_WITHOUT_CALL = Columns((*DEFINITION, "task_id"))
"""The columns that are read of a task that fails without a call."""
_TOO_LATE = f"""
    SELECT {_WITHOUT_CALL} FROM task
    WHERE state = 'scheduled' AND due_at <= ? AND expires_at <= ? ORDER BY due_at LIMIT ?
    /* FOR UPDATE SKIP LOCKED */
"""
_DUE = f"""
    SELECT {_WITHOUT_CALL}, host FROM task
    WHERE state = 'scheduled' AND due_at <= ? ORDER BY due_at /* FOR UPDATE SKIP LOCKED */
"""
_PAUSES = "SELECT host, paused_at, paused_until FROM host_setting WHERE paused_at IS NOT NULL"
_FAIL = """
    UPDATE task SET state = 'failed', reason = ?, detail = ?, due_at = NULL, finished_at_ms = ?
    WHERE task_id = ?
"""
# A single query finds the free minute: a query for each minute would delay all other writes.
NEXT_FREE = """
    SELECT trigger_at + 60 FROM task AS taken
    WHERE task_name = ? AND trigger_at >= ? AND NOT EXISTS (
        SELECT 1 FROM task
        WHERE task_name = taken.task_name AND trigger_at = taken.trigger_at + 60
    )
    ORDER BY trigger_at LIMIT 1
"""
# Without INDEXED BY, both databases would read the whole index task_host, to sort less.
_DUE_HOSTS = """
    SELECT DISTINCT host FROM (
        SELECT host FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?
        ORDER BY due_at
    ) AS due
"""
_BACKLOG = "SELECT count(*) FROM task INDEXED BY task_due WHERE state = 'scheduled' AND due_at <= ?"


def next_number(column: str) -> str:
    """Return SQL for the value of a column plus one; a damaged value stays damaged."""
    last = MAX_NUMBER - 1
    return f"CASE WHEN {column} BETWEEN 0 AND {last} THEN {column} + 1 ELSE -1 END"


_CLAIM = f"""
    UPDATE task
    SET state = 'running', due_at = NULL, claimed_at_ms = ?, lease_until = ? + timeout, node = ?,
        attempts_used = {next_number("attempts_used")}, last_attempt = {next_number("last_attempt")}
    WHERE task_id IN (
        SELECT task_id FROM task
        WHERE state = 'scheduled' AND host = ? AND due_at <= ? AND trigger_at <= ?
            AND expires_at > ?
        ORDER BY due_at, task_id LIMIT ?
    )
    RETURNING {CLAIM}
"""
_CLAIMS = f"SELECT {CLAIM} FROM task WHERE state = 'running'"
_RECORD = """
    UPDATE task
    SET state = ?, reason = ?, detail = ?, due_at = ?, finished_at_ms = ?, lease_until = NULL,
        attempts_used = attempts_used - ?, last_attempt = last_attempt - ?,
        first_lateness_ms = coalesce(first_lateness_ms, ?)
    WHERE task_id = ? AND last_attempt = ? AND state = 'running'
"""
_TASK_ATTEMPT = Columns(("task_id", *ATTEMPT))


def insert_attempts_statement(rows: int, insert: str = "INSERT") -> str:
    """Return the statement that inserts attempts: for each row, ``task_id`` and then the values."""
    values = ", ".join([f"({_TASK_ATTEMPT.placeholders()})"] * rows)
    return f"{insert} INTO attempt ({_TASK_ATTEMPT}) VALUES {values}"


_ATTEMPT = insert_attempts_statement(1)
# The number of attempts on record is bounded: the oldest are deleted.
_DROP = "DELETE FROM attempt WHERE task_id = ? AND number <= ?"
_RECORDED = """
    SELECT status, reason FROM attempt
    WHERE task_id = ? AND number = ? AND started_at_ms = ? AND node = ?
"""
_PURGE = """
    DELETE FROM task WHERE task_id IN (
        SELECT task_id FROM task
        WHERE finished_at_ms < ? AND finished_at_ms >= 0 AND state IN ('succeeded', 'failed')
        ORDER BY finished_at_ms LIMIT ?
        /* FOR UPDATE SKIP LOCKED */
    )
"""
_PURGE_OUTCOMES = """
    DELETE FROM removed_outcome WHERE outcome_id IN (
        SELECT outcome_id FROM removed_outcome WHERE finished_at_ms < ?
        ORDER BY finished_at_ms LIMIT ? /* FOR UPDATE SKIP LOCKED */
    )
"""


def expire_overdue(write: Write, now: float) -> DueScan:
    """Fail the tasks that can no longer start, and find the hosts with due tasks."""
    now = write.cursor.current_time(now)
    second = int(now)
    late = write.cursor.execute(_TOO_LATE, (second, second, _EXPIRE_LIMIT)).fetchall()
    pauses = _pauses(write.cursor) if late else {}
    for values in late:
        row = _WITHOUT_CALL.name(values)
        try:
            definition = to_definition(row)
            transition = too_late(definition, was_paused=_was_paused(definition, pauses))
        except CorruptRow as error:
            transition = unreadable(str(error))
        _fail(write, row, transition, now)
    hosts = [host for (host,) in write.cursor.execute(_DUE_HOSTS, (second,))]
    readable = _readable(hosts)
    if len(readable) < len(hosts):
        _fail_without_host(write, second, now)
    return DueScan(readable, more=len(late) == _EXPIRE_LIMIT)


def _fail_without_host(write: Write, second: int, now: float) -> None:
    """Fail due tasks whose stored host cannot be read, because no claim would find them."""
    for values in write.cursor.execute(_DUE, (second,)).fetchall():
        *known, host = values
        if type(host) is not str:
            row = _WITHOUT_CALL.name(known)
            _fail(write, row, unreadable(f"the stored host of {to_key(row)} is broken"), now)


_Pauses = Mapping[str, tuple[int, int]]


def _pauses(cursor: Cursor) -> _Pauses:
    return {
        host: (begin, end)
        for host, begin, end in cursor.execute(_PAUSES)
        if type(begin) is type(end) is int
    }


def _was_paused(definition: Definition, pauses: _Pauses) -> bool:
    """Return whether calls to the host were paused at a time when the task could start."""
    try:
        host = host_of(definition.callback)
    except InvalidValue:
        return False
    return any(
        begin < definition.expires_at and end > definition.trigger_at
        for begin, end in (pauses[one] for one in (host, "*") if one in pauses)
    )


def hosts_with_due_tasks(cursor: Cursor, now: float) -> Sequence[str]:
    """Return the hosts with due tasks, at a cost that permits frequent polls.

    Of very many due tasks, PostgreSQL reads only those that have been due for longest.
    """
    return _due_hosts(cursor, int(now))


def _due_hosts(cursor: Cursor, second: int) -> list[str]:
    return _readable(host for (host,) in cursor.execute(_DUE_HOSTS, (second,)))


def _readable(hosts: Iterable[Any]) -> list[str]:
    """Return the stored hosts that can be read."""
    return [host for host in hosts if type(host) is str]


def backlog(cursor: Cursor, now: float) -> int:
    """Return the number of tasks that are due and not yet claimed."""
    count: int = cursor.execute(_BACKLOG, (int(cursor.current_time(now)),)).fetchone()[0]
    return count


def claim(write: Write, shares: Mapping[str, int], now: float) -> Sequence[Claim]:
    """Claim due tasks, the longest due first, up to the number by host in ``shares``.

    Each becomes ``running``, with one more attempt used, under a lease that outlasts its call.
    """
    claims: list[Claim] = []
    node = write.node()
    for host, share in shares.items():
        taken = write.cursor.execute(
            _CLAIM, (to_ms(now), int(now) + LEASE_MARGIN, node, host, now, now, now, share)
        ).fetchall()
        readable = decode_or_fail(write, map(CLAIM.name, taken), now)
        if len(readable) < len(taken):
            # A corrupt task has reduced the number of claims, so the host may have more due tasks.
            write.changes.add_due(host, int(now))
        claims += readable
    return in_claim_order(write.changes, claims)


def in_claim_order(changes: Changes, claims: list[Claim]) -> list[Claim]:
    """Record claims as changes; return them, the longest due first (RETURNING has no order)."""
    claims.sort(key=lambda claim: (claim.definition.trigger_at, claim.task_id))
    changes.keys += [claim.definition.key for claim in claims]
    return claims


def take_orphans(write: Write, now: float, *, every: bool = False) -> Sequence[Claim]:
    """Take over the orphaned claims; each is returned to a single daemon.

    If several daemons share the database, this operation is also the heartbeat of this daemon, and
    must run every :data:`callme.store.interface.HEARTBEAT_SECONDS`.

    :param every: whether every claim is an orphan if no other daemon uses the database, because
        this daemon has just started.
    """
    cursor = write.cursor
    if every:
        rows = cursor.execute(_CLAIMS).fetchall()
    else:
        rows = cursor.execute(f"{_CLAIMS} AND lease_until <= ?", (now,)).fetchall()
    return decode_or_fail(write, map(CLAIM.name, rows), now)


def decode_or_fail(write: Write, rows: Iterable[NamedRow], now: float) -> list[Claim]:
    """Return the claims in some rows, and fail the tasks of those that are corrupt."""
    claims = []
    for row in rows:
        try:
            claims.append(to_claim(row))
        except CorruptRow as error:
            _fail(write, row, unreadable(str(error)), now)
    return claims


def _fail(write: Write, row: NamedRow, transition: Transition, now: float) -> None:
    """Fail a task, which may be corrupt, without an attempt."""
    key = to_key(row)
    reason = _value(transition.reason)
    write.cursor.execute(_FAIL, (reason, transition.detail, to_ms(now), row["task_id"]))
    # Without an attempt, no subscriber depends on the number of attempts.
    write.changes.transitions.append(TaskTransition(key=key, transition=transition))
    if row["on_failure"] is not None or write.on_failure is not None:
        enqueue_notification(write, key, now)


def record(write: Write, claim: Claim, transition: Transition, now: float) -> bool:
    """Store the transition of a claimed task, and its attempt; safe to repeat.

    A transition without an attempt returns the attempt to the retry budget.

    :return: ``False`` if the claim was no longer valid, so that nothing was stored.
    """
    cursor = write.cursor
    cursor.execute(_RECORD, (*record_values(transition, now), claim.task_id, claim.number))
    stored = cursor.rowcount > 0
    if stored and (attempt := transition.attempt) is not None:
        cursor.execute(_ATTEMPT, (claim.task_id, *attempt_values(attempt)))
    return finish_record(write, claim, transition, now, stored=stored)


def _drop_attempts(cursor: Cursor, claim: Claim) -> None:
    """Delete the oldest attempts of a task that exceed the maximum with the attempt of a claim."""
    if claim.number > MAX_ATTEMPTS:
        cursor.execute(_DROP, (claim.task_id, claim.number - MAX_ATTEMPTS))


def record_values(transition: Transition, now: float) -> Row:
    """Return the values of a record.

    The values are the new state, reason, detail and times, then twice whether the attempt is
    unspent, and the lateness of the attempt.
    """
    unspent = transition.attempt is None
    return (
        transition.state.value,
        _value(transition.reason),
        transition.detail,
        transition.due_at,
        None if transition.state is State.SCHEDULED else to_ms(now),
        unspent,
        unspent,
        None if transition.attempt is None else transition.attempt.lateness_ms,
    )


def finish_record(
    write: Write, claim: Claim, transition: Transition, now: float, *, stored: bool
) -> bool:
    """Finish a record: note its changes, delete old attempts, and put a notification.

    :param stored: whether this transaction has stored the transition.
    :return: whether it is stored: an earlier transaction whose result was lost may have done so.
    """
    changes, definition = write.changes, claim.definition
    task_transition = TaskTransition(
        key=definition.key, transition=transition, attempts_used=claim.attempts_used
    )
    if not stored and not _was_recorded(write.cursor, claim, transition):
        changes.lost.append(task_transition)
        return False
    changes.transitions.append(task_transition)
    _drop_attempts(write.cursor, claim)
    if transition.due_at is not None:
        changes.add_due(claim.host, transition.due_at)
    url = notification_url(definition, transition.state, write.on_failure)
    if url is not None and stored:
        enqueue_notification(write, definition.key, now)
    elif url is not None:
        changes.add_due(host_of(url), int(now))
    return True


def _was_recorded(cursor: Cursor, claim: Claim, transition: Transition) -> bool:
    """Return whether an earlier transaction, whose result was lost, has stored an attempt."""
    attempt = transition.attempt
    if attempt is None:
        return False
    values = (claim.task_id, attempt.number, attempt.started_at_ms, attempt.node)
    row: Any = cursor.execute(_RECORDED, values).fetchone()
    return row is not None and tuple(row) == (attempt.status, _value(attempt.reason))


def enqueue_notification(write: Write, key: Key, now: float) -> None:
    """Put the task that notifies of the end of another task, after that end is written.

    The notification takes the first free minute from now on, because the current minute may have
    the notification of an earlier end of the same task, which must not be overwritten.
    """
    cursor = write.cursor
    ended = get(cursor, key)
    notification = None if ended is None else build_notification(ended, now, write.on_failure)
    while notification is not None:
        values = cursor.definition_values(notification)
        cursor.execute(INSERT, (*values, notification.trigger_at, to_ms(now)))
        if cursor.rowcount:
            write.changes.add_due(host_of(notification.callback), notification.trigger_at)
            return
        free = cursor.execute(
            NEXT_FREE, (notification.task_name, notification.trigger_at)
        ).fetchone()
        # Without a free minute, another daemon has just deleted the conflicting task.
        notification = notification if free is None else notification._replace(trigger_at=free[0])


def purge(write: Write, finished_before: float, limit: int, outcomes_before: float) -> int:
    """Delete up to ``limit`` tasks that finished before a time, the oldest first.

    :param finished_before: seconds since 1970.
    :param outcomes_before: the outcomes of removed tasks are deleted up to this time: seconds since
        1970.
    :return: the number of deleted tasks.
    """
    values = (to_ms(outcomes_before), OUTCOMES_PER_TASK * limit)
    write.cursor.execute(_PURGE_OUTCOMES, values)
    return write.cursor.execute(_PURGE, (to_ms(finished_before), limit)).rowcount


def _value(reason: Any) -> str | None:
    return None if reason is None else reason.value
