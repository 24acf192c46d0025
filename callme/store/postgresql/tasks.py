"""Operations on tasks by key in PostgreSQL, with one statement for many tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from ...core.parameters import PARAMETERS
from ...core.task import ATTEMPTS_PER_PAGE, Definition, Task, new_task
from ...core.times import Key, to_ms
from ...core.transitions import PutCondition, PutOutcome, decide_put
from .. import tasks
from ..codec import (
    ATTEMPT,
    STORED_DEFINITION,
    TASK,
    Columns,
    Row,
    definition_values,
    to_attempt,
)
from ..database import Operation, Unfinished, Write
from ..interface import Cursor, PutResult, TaskVersion
from .cursor import BINARY

_STATEMENT_LIMIT = 200
"""Maximum number of tasks in one statement."""
_STATEMENT_CHARACTERS = 4 * 1024 * 1024
"""Maximum total length of payloads in one statement, in characters; a single task may exceed it."""
_GIVEN = Columns((*STORED_DEFINITION, "created_at_ms"))
# JSON has no type for bytes, so they are passed as hexadecimal digits.
_TYPES = {
    parameter.name: parameter.column.postgresql_type.replace("bytea", "text")
    for parameter in PARAMETERS
} | {
    "host": "text",
    "expires_at": "bigint",
    "created_at_ms": "bigint",
}
_CREATE = f"""
    INSERT INTO task ({STORED_DEFINITION}, state, due_at, created_at_ms)
    SELECT {STORED_DEFINITION.select(**{name: f"decode({name}, 'hex')" for name in BINARY})},
        'scheduled', trigger_at, created_at_ms
    FROM json_to_recordset(?::json)
        AS given ({", ".join(f"{name} {_TYPES[name]}" for name in _GIVEN)})
    ON CONFLICT (task_name, trigger_at) DO NOTHING
    RETURNING task_name, trigger_at
"""
_EXISTING = f"""
    SELECT {TASK} FROM task
    WHERE (task_name, trigger_at) IN (SELECT * FROM unnest(?::text[], ?::bigint[]))
"""
_ATTEMPTS = f"""
    SELECT {ATTEMPT}, task_id FROM unnest(?::bigint[]) AS task (id) CROSS JOIN LATERAL (
        SELECT {ATTEMPT}, task_id FROM attempt WHERE task_id = task.id
        ORDER BY number DESC LIMIT {ATTEMPTS_PER_PAGE}
    ) AS last ORDER BY number
"""
_ATTEMPT_COLUMNS = Columns((*ATTEMPT, "task_id"))
# COLLATE is explicit because the array has the database's collation, while the table has "C".
_MODIFIED = """
    SELECT known.task_name, known.trigger_at
    FROM unnest(?::text[], ?::bigint[], ?::text[], ?::bigint[], ?::int[])
        AS known (task_name, trigger_at, state, created_at_ms, attempts_used)
    LEFT JOIN task
        ON task.task_name = known.task_name COLLATE "C" AND task.trigger_at = known.trigger_at
    WHERE (task.state, task.created_at_ms, task.attempts_used)
        IS DISTINCT FROM (known.state, known.created_at_ms, known.attempts_used)
    LIMIT ?
"""


@frozen(kw_only=True)
class PutCall:
    """The arguments of :func:`callme.store.tasks.put`."""

    definition: Definition
    condition: PutCondition
    now: float

    @property
    def may_create(self) -> bool:
        created = decide_put(None, self.definition, self.condition, self.now)
        return created is PutOutcome.CREATED

    def row(self) -> Row:
        """Return the values of :data:`_GIVEN`."""
        return (*definition_values(self.definition), to_ms(self.now))


@frozen(kw_only=True)
class PutManyCall:
    """The arguments of :func:`callme.store.tasks.put_many`."""

    definitions: Sequence[Definition]
    now: float

    def puts(self) -> list[PutCall]:
        """Return the equivalent single puts."""
        return [
            PutCall(definition=definition, condition=PutCondition.NONE, now=self.now)
            for definition in self.definitions
        ]


def send_puts(write: Write, puts: Sequence[PutCall]) -> Callable[[], list[PutResult | Unfinished]]:
    """Send the statements of many puts; return a function that receives their results.

    A put that creates no task is unfinished.
    """
    # Of several puts of one key, the first is part of the statement that creates tasks.
    first: dict[Key, PutCall] = {}
    for call in puts:
        first.setdefault(call.definition.key, call)
    # The order is the same in all daemons, so that puts of the same tasks cannot deadlock.
    fresh = [first[key] for key in sorted(first) if first[key].may_create]
    creating = [_send_creation(write.cursor, part) for part in _in_parts(fresh)]

    def receive() -> list[PutResult | Unfinished]:
        created = _receive_creations(write, creating)
        return [_created_or_again(call, created, first) for call in puts]

    return receive


def _receive_creations(
    write: Write, creating: Sequence[tuple[list[dict[str, Any]], Cursor]]
) -> set[Key]:
    """Record the created tasks as changes, and return their keys."""
    created: set[Key] = set()
    for rows, creation in creating:
        created.update(Key(*row) for row in creation)
        for row in rows:
            if Key(row["task_name"], row["trigger_at"]) in created:
                write.changes.add_due(row["host"], row["trigger_at"])
    return created


def _created_or_again(
    call: PutCall, created: Container[Key], first: Mapping[Key, PutCall]
) -> PutResult | Unfinished:
    key = call.definition.key
    if key in created and call is first[key]:
        return PutResult(PutOutcome.CREATED, new_task(call.definition, call.now))
    return Unfinished(Operation(function=put_again, args=(), kwargs={"call": call}))


def _send_creation(cursor: Cursor, puts: Sequence[PutCall]) -> tuple[list[dict[str, Any]], Cursor]:
    rows = [_GIVEN.name(call.row()) for call in puts]
    for row in rows:
        row.update((name, row[name].encode().hex()) for name in BINARY)
    return rows, cursor.execute(_CREATE, (json.dumps(rows),))


@frozen(kw_only=True)
class PutAgainCall:
    """The arguments of :func:`put_again`."""

    call: PutCall


def put_again(write: Write, *, call: PutCall) -> PutResult:
    """Finish a put that created no task."""
    (result,) = send_puts_again(write, [PutAgainCall(call=call)])()
    return result


def send_puts_again(write: Write, again: Sequence[PutAgainCall]) -> Callable[[], list[PutResult]]:
    """Send nothing; return a function that finishes puts that created no task."""

    def receive() -> list[PutResult]:
        found = _existing(write.cursor, {one.call.definition.key for one in again})
        return [_put_on(write, one.call, found.get(one.call.definition.key)) for one in again]

    return receive


def _put_on(write: Write, call: PutCall, existing: Task | None) -> PutResult:
    """Return the result of a put that creates no task; lock a task that it may replace."""
    outcome = decide_put(existing, call.definition, call.condition, call.now)
    if existing is None or outcome is PutOutcome.REPLACED:
        return tasks.put(write, call.definition, call.condition, call.now)
    return PutResult(outcome, existing)


def send_puts_of_many(
    write: Write, calls: Sequence[PutManyCall]
) -> Callable[[], list[Sequence[PutResult] | Unfinished]]:
    """Send the statements of several calls of :func:`callme.store.tasks.put_many`."""
    receiving = [send_puts(write, call.puts()) for call in calls]

    def received(results: Sequence[PutResult | Unfinished]) -> Sequence[PutResult] | Unfinished:
        finished = [result for result in results if not isinstance(result, Unfinished)]
        if len(finished) < len(results):
            return Unfinished(Operation(function=finish_many, args=(), kwargs={"results": results}))
        return [tasks.without_created_task(result) for result in finished]

    return lambda: [received(receive()) for receive in receiving]


def finish_many(write: Write, *, results: Sequence[PutResult | Unfinished]) -> Sequence[PutResult]:
    """Finish the puts among many that created no task."""
    again = [
        PutAgainCall(**result.operation.kwargs)
        for result in results
        if isinstance(result, Unfinished)
    ]
    rest = iter(send_puts_again(write, again)())
    return [
        tasks.without_created_task(next(rest)) if isinstance(one, Unfinished) else one
        for one in results
    ]


def _payload_length(call: PutCall) -> int:
    return len(call.definition.payload) + len(call.definition.payload_base64)


def _in_parts(puts: Sequence[PutCall]) -> Iterator[list[PutCall]]:
    """Split puts so that each part fits into one statement."""
    part: list[PutCall] = []
    text = 0
    for call in puts:
        length = _payload_length(call)
        text += length
        if part and (len(part) == _STATEMENT_LIMIT or text > _STATEMENT_CHARACTERS):
            yield part
            part, text = [], length
        part.append(call)
    if part:
        yield part


def _existing(cursor: Cursor, keys: Iterable[Key]) -> dict[Key, Task]:
    """Return the tasks under some keys, with two statements for any number of keys."""
    names, times = zip(*((key.task_name, key.trigger_at) for key in keys), strict=True)
    found = cursor.execute(_EXISTING, (list(names), list(times))).fetchall()
    rows = [TASK.name(row) for row in found]
    attempts: dict[int, list[Any]] = {row["task_id"]: [] for row in rows}
    for values in cursor.execute(_ATTEMPTS, (list(attempts),)):
        attempt = _ATTEMPT_COLUMNS.name(values)
        attempts[attempt.pop("task_id")].append(to_attempt(attempt))
    tasks_found = [
        tasks.with_attempts(cursor, row, tuple(attempts[row["task_id"]])) for row in rows
    ]
    return {task.key: task for task in tasks_found}


def get_if_modified(
    cursor: Cursor, known: Mapping[Key, TaskVersion | None], limit: int
) -> Mapping[Key, Task | None]:
    """Run :func:`callme.store.tasks.get_if_modified` in three statements."""
    versions: list[tuple[Any, ...]] = []
    for key, version in known.items():
        # An empty state matches no task.
        values: tuple[Any, ...] = ("", 0, 0)
        if version is not None:
            values = version.stored()
        versions.append((key.task_name, key.trigger_at, *values))
    columns = [list(column) for column in zip(*versions, strict=True)]
    keys = [Key(*row) for row in cursor.execute(_MODIFIED, (*columns, limit))]
    found = _existing(cursor, keys) if keys else {}
    return {key: found.get(key) for key in keys}
