"""Tasks created in SQLite, many in one statement.

SQLite works without the interpreter's lock, and the thread must get it back after each statement.
While the reactor is busy, that takes up to five milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby
from typing import Any

from ...core.task import Definition, new_task
from ...core.times import to_ms
from ...core.transitions import PutCondition, PutOutcome, decide_put
from .. import tasks
from ..codec import STORED_DEFINITION, Row, definition_values
from ..database import Operation, Write
from ..interface import PutResult

_ROWS_PER_STATEMENT = (100, 25, 5, 1)
"""Numbers of rows for which there is a statement: few, because each is compiled and cached."""
_STATEMENTS = {rows: tasks.insert_statement(rows) for rows in _ROWS_PER_STATEMENT}
_HOST, _TRIGGER_AT = STORED_DEFINITION.index("host"), STORED_DEFINITION.index("trigger_at")

PutCall = tuple[Definition, PutCondition, float]
"""The arguments of :func:`callme.store.tasks.put`."""


def run_all(write: Write, operations: Sequence[Operation]) -> list[Any]:
    """Run operations in order, puts that follow each other in few statements."""
    results: list[Any] = []
    for function, group in groupby(operations, key=lambda operation: operation.function):
        if function is tasks.put:
            puts = [_put_call(*operation.args, **operation.kwargs) for operation in group]
            results += put_all(write, puts)
        elif function is tasks.put_many:
            results += [put_many(write, *operation.args, **operation.kwargs) for operation in group]
        else:
            results += [operation.run(write) for operation in group]
    return results


def _put_call(definition: Definition, condition: PutCondition, now: float) -> PutCall:
    return definition, condition, now


def put_all(write: Write, puts: Sequence[PutCall]) -> list[PutResult]:
    """Run :func:`callme.store.tasks.put` for many puts."""
    if len(puts) > 1 and _create_all(write, puts):
        return [
            PutResult(PutOutcome.CREATED, new_task(definition, now)) for definition, _, now in puts
        ]
    return [tasks.put(write, *put) for put in puts]


def put_many(write: Write, definitions: Sequence[Definition], now: float) -> Sequence[PutResult]:
    """Run :func:`callme.store.tasks.put_many` in few statements."""
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
    cursor = write.cursor
    cursor.execute("SAVEPOINT many")
    all_new = _insert(write, rows) == len(rows)
    if not all_new:
        cursor.execute("ROLLBACK TO many")
    cursor.execute("RELEASE many")
    if all_new:
        for row in rows:
            write.changes.add_due(row[_HOST], row[_TRIGGER_AT])
    return all_new


def _insert(write: Write, rows: Sequence[Row]) -> int:
    """Insert rows whose keys are free; return their number."""
    inserted = begin = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - begin >= size:
            values = tuple(chain.from_iterable(rows[begin : begin + size]))
            write.cursor.execute(_STATEMENTS[size], values)
            inserted += write.cursor.rowcount
            begin += size
    return inserted
