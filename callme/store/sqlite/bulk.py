"""Consecutive operations of the same kind in SQLite, combined in few statements.

SQLite releases the interpreter's lock (GIL), and its thread must reacquire it after each
statement. While the reactor is busy, that costs more than the statement itself.

The statements use OR FAIL, and no savepoint surrounds them: otherwise SQLite would copy each page
before it changes the page, in order to roll back a single statement. The whole transaction is
rolled back instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, groupby
from typing import Any

from ...core.task import Claim, Definition, Transition, new_task
from ...core.times import to_ms
from ...core.transitions import PutCondition, PutOutcome, decide_put
from .. import queue, tasks
from ..codec import STORED_DEFINITION, Row, attempt_values, definition_values
from ..database import Operation, Write
from ..interface import PutResult

_ROWS_PER_STATEMENT = (100, 25, 5, 1)
"""Numbers of rows for which there are statements; few, because each is compiled and cached."""
_INSERT = "INSERT OR FAIL"
_RECORD_ALL = """
    UPDATE OR FAIL task
    SET state = done.column1, reason = done.column2, detail = done.column3, due_at = done.column4,
        finished_at_ms = done.column5, lease_until = NULL,
        attempts_used = attempts_used - done.column6, last_attempt = last_attempt - done.column7,
        first_lateness_ms = coalesce(first_lateness_ms, done.column8)
    FROM (VALUES {rows}) AS done
    WHERE task_id = done.column9 AND last_attempt = done.column10 AND task.state = 'running'
"""
_HOST, _TRIGGER_AT = STORED_DEFINITION.index("host"), STORED_DEFINITION.index("trigger_at")

PutCall = tuple[Definition, PutCondition, float]
"""The arguments of :func:`callme.store.tasks.put`."""
RecordCall = tuple[Claim, Transition, float]
"""The arguments of :func:`callme.store.queue.record`."""


class NotTogether(Exception):
    """Combined statements have changed fewer rows than expected: operations must run singly."""


def run_all(write: Write, operations: Sequence[Operation], *, savepoints: bool) -> list[Any]:
    """Run operations in order; combine consecutive operations of the same kind.

    :param savepoints: whether operations that cannot be combined are repeated one by one.
    :raises NotTogether: for such operations without savepoints; the transaction must then be rolled
        back.
    """
    results: list[Any] = []
    for function, same in groupby(operations, key=lambda operation: operation.function):
        group = list(same)
        if savepoints:
            write.cursor.execute("SAVEPOINT same")
        try:
            results += _IN_COMMON.get(function, _run_singly)(write, group)
        except NotTogether:
            if not savepoints:
                raise
            write.cursor.execute("ROLLBACK TO same")
            results += _run_singly(write, group)
        if savepoints:
            write.cursor.execute("RELEASE same")
    return results


def _run_singly(write: Write, operations: Sequence[Operation]) -> list[Any]:
    return [operation.run(write) for operation in operations]


def _put(definition: Definition, condition: PutCondition, now: float) -> PutCall:
    return definition, condition, now


def _put_many(definitions: Sequence[Definition], now: float) -> Sequence[PutCall]:
    return [(definition, PutCondition.NONE, now) for definition in definitions]


def _record(claim: Claim, transition: Transition, now: float) -> RecordCall:
    return claim, transition, now


def _put_in_common(write: Write, operations: Sequence[Operation]) -> list[PutResult]:
    """Run calls of :func:`callme.store.tasks.put`."""
    puts = [_put(*one.args, **one.kwargs) for one in operations]
    if len(puts) == 1 or not _create_all(write, puts):
        return _run_singly(write, operations)
    return [PutResult(PutOutcome.CREATED, new_task(definition, now)) for definition, _, now in puts]


def _put_slices_in_common(
    write: Write, operations: Sequence[Operation]
) -> list[Sequence[PutResult]]:
    """Run calls of :func:`callme.store.tasks.put_many`: slices of batches."""
    slices = [_put_many(*one.args, **one.kwargs) for one in operations]
    if not _create_all(write, list(chain.from_iterable(slices))):
        return _run_singly(write, operations)
    return [[tasks.CREATED] * len(puts) for puts in slices]


def _create_all(write: Write, puts: Sequence[PutCall]) -> bool:
    """Create the tasks of some puts, unless the condition of one of them forbids to create."""
    if any(decide_put(None, *put) is not PutOutcome.CREATED for put in puts):
        return False
    rows = [
        (*definition_values(definition), definition.trigger_at, to_ms(now))
        for definition, _, now in puts
    ]
    _run(write, _insert_tasks, rows)
    for row in rows:
        write.changes.add_due(row[_HOST], row[_TRIGGER_AT])
    return True


def _record_in_common(write: Write, operations: Sequence[Operation]) -> list[bool]:
    """Run calls of :func:`callme.store.queue.record`."""
    if len(operations) == 1:
        return _run_singly(write, operations)
    records = [_record(*one.args, **one.kwargs) for one in operations]
    updates: list[Row] = []
    attempts: list[Row] = []
    for claim, transition, now in records:
        updates.append((*queue.record_values(transition, now), claim.task_id, claim.number))
        if transition.attempt is not None:
            attempts.append((claim.task_id, *attempt_values(transition.attempt)))
    _run(write, _update_tasks, updates)
    _run(write, _insert_attempts, attempts)
    return [
        queue.finish_record(write, claim, transition, now, stored=True)
        for claim, transition, now in records
    ]


_IN_COMMON: dict[Callable[..., Any], Callable[[Write, Sequence[Operation]], list[Any]]] = {
    tasks.put: _put_in_common,
    tasks.put_many: _put_slices_in_common,
    queue.record: _record_in_common,
}


def _run(write: Write, statement: Callable[[int], str], rows: Sequence[Row]) -> None:
    """Run a statement for rows of values.

    :param statement: returns the statement for a number of rows.
    :raises NotTogether: when it changes fewer rows than given.
    """
    for part in _parts(rows):
        write.cursor.execute(statement(len(part)), tuple(chain.from_iterable(part)))
        if write.cursor.rowcount < len(part):
            raise NotTogether


def _parts(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    begin = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - begin >= size:
            yield rows[begin : begin + size]
            begin += size


@cache
def _insert_tasks(rows: int) -> str:
    return tasks.insert_statement(rows, _INSERT)


@cache
def _insert_attempts(rows: int) -> str:
    return queue.insert_attempts_statement(rows, _INSERT)


@cache
def _update_tasks(rows: int) -> str:
    return _RECORD_ALL.format(rows=", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows))
