"""Operations in SQLite that follow each other, many in one statement.

SQLite works without the interpreter's lock, and its thread must get the lock back after each
statement. While the reactor is busy, that costs more than the statement.
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
"""Numbers of rows for which there is a statement: few, because each is compiled and cached."""
_RECORD_ALL = """
    UPDATE task
    SET state = done.column1, reason = done.column2, detail = done.column3, due_at = done.column4,
        finished_at_ms = done.column5, lease_until = NULL,
        attempts_used = attempts_used - done.column6, last_attempt = last_attempt - done.column7
    FROM (VALUES {rows}) AS done
    WHERE task_id = done.column8 AND last_attempt = done.column9 AND task.state = 'running'
"""
_HOST, _TRIGGER_AT = STORED_DEFINITION.index("host"), STORED_DEFINITION.index("trigger_at")

PutCall = tuple[Definition, PutCondition, float]
"""The arguments of :func:`callme.store.tasks.put`."""
RecordCall = tuple[Claim, Transition, float]
"""The arguments of :func:`callme.store.queue.record`."""


def run_all(write: Write, operations: Sequence[Operation]) -> list[Any]:
    """Run operations in order; those of one kind that follow each other in few statements."""
    results: list[Any] = []
    for function, group in groupby(operations, key=lambda operation: operation.function):
        if function is tasks.put:
            results += put_all(write, [_put(*one.args, **one.kwargs) for one in group])
        elif function is queue.record:
            results += record_all(write, [_record(*one.args, **one.kwargs) for one in group])
        elif function is tasks.put_many:
            results += [put_many(write, *one.args, **one.kwargs) for one in group]
        else:
            results += [operation.run(write) for operation in group]
    return results


def _put(definition: Definition, condition: PutCondition, now: float) -> PutCall:
    return definition, condition, now


def _record(claim: Claim, transition: Transition, now: float) -> RecordCall:
    return claim, transition, now


def put_all(write: Write, puts: Sequence[PutCall]) -> list[PutResult]:
    """Run :func:`callme.store.tasks.put` for many puts."""
    if len(puts) > 1 and _create_all(write, puts):
        return [
            PutResult(PutOutcome.CREATED, new_task(definition, now)) for definition, _, now in puts
        ]
    return [tasks.put(write, *put) for put in puts]


def put_many(write: Write, definitions: Sequence[Definition], now: float) -> Sequence[PutResult]:
    """Run :func:`callme.store.tasks.put_many`."""
    puts = [(definition, PutCondition.NONE, now) for definition in definitions]
    if _create_all(write, puts):
        return [tasks.CREATED] * len(puts)
    return tasks.put_many(write, definitions, now)


def _create_all(write: Write, puts: Sequence[PutCall]) -> bool:
    """Create the tasks of some puts; none of them if that is not what every put does."""
    if any(decide_put(None, *put) is not PutOutcome.CREATED for put in puts):
        return False
    rows = [
        (*definition_values(definition), definition.trigger_at, to_ms(now))
        for definition, _, now in puts
    ]
    if not _all_or_none(write, lambda: _run(write, _insert_tasks, rows) == len(rows)):
        return False
    for row in rows:
        write.changes.add_due(row[_HOST], row[_TRIGGER_AT])
    return True


def record_all(write: Write, records: Sequence[RecordCall]) -> list[bool]:
    """Run :func:`callme.store.queue.record` for many claims."""
    updates: list[Row] = []
    attempts: list[Row] = []
    for claim, transition, now in records:
        updates.append((*queue.record_values(transition, now), claim.task_id, claim.number))
        if transition.attempt is not None:
            attempts.append((claim.task_id, *attempt_values(transition.attempt)))

    def store() -> bool:
        if _run(write, _update_tasks, updates) < len(updates):
            return False
        _run(write, _insert_attempts, attempts)
        return True

    if len(records) > 1 and _all_or_none(write, store):
        return [
            queue.finish_record(write, claim, transition, now, stored=True)
            for claim, transition, now in records
        ]
    return [queue.record(write, *record) for record in records]


def _all_or_none(write: Write, run: Callable[[], bool]) -> bool:
    """Run statements, and undo them unless they succeeded; return whether they did."""
    write.cursor.execute("SAVEPOINT many")
    succeeded = run()
    if not succeeded:
        write.cursor.execute("ROLLBACK TO many")
    write.cursor.execute("RELEASE many")
    return succeeded


def _run(write: Write, statement: Callable[[int], str], rows: Sequence[Row]) -> int:
    """Run a statement for rows of values; return the number of rows that it changed.

    :param statement: returns the statement for a number of rows.
    """
    changed = 0
    for part in _parts(rows):
        write.cursor.execute(statement(len(part)), tuple(chain.from_iterable(part)))
        changed += write.cursor.rowcount
    return changed


def _parts(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    begin = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - begin >= size:
            yield rows[begin : begin + size]
            begin += size


@cache
def _insert_tasks(rows: int) -> str:
    return tasks.insert_statement(rows)


@cache
def _insert_attempts(rows: int) -> str:
    return queue.insert_attempts_statement(rows)


@cache
def _update_tasks(rows: int) -> str:
    return _RECORD_ALL.format(rows=", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows))
