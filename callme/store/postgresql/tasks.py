"""Tasks by their keys in PostgreSQL: many created, read or compared in one statement."""

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
from ..database import Write
from ..interface import Cursor, PutResult, TaskVersion
from .cursor import BINARY

_STATEMENT_LIMIT = 200
"""Maximum number of tasks in one statement."""
_STATEMENT_CHARACTERS = 4 * 1024 * 1024
"""Maximum number of characters of their payloads, but for one that is larger by itself."""
_GIVEN = Columns((*STORED_DEFINITION, "created_at_ms"))
# JSON has no type for bytes: they are passed as hexadecimal digits.
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
    SELECT {TASK}, task_id FROM task
    WHERE (task_name, trigger_at) IN (SELECT * FROM unnest(?::text[], ?::bigint[]))
"""
_EXISTING_COLUMNS = Columns((*TASK, "task_id"))
_ATTEMPTS = f"""
    SELECT {ATTEMPT}, task_id FROM unnest(?::bigint[]) AS task (id) CROSS JOIN LATERAL (
        SELECT {ATTEMPT}, task_id FROM attempt WHERE task_id = task.id
        ORDER BY number DESC LIMIT {ATTEMPTS_PER_PAGE}
    ) AS last ORDER BY number
"""
_ATTEMPT_COLUMNS = Columns((*ATTEMPT, "task_id"))
# COLLATE is explicit, because the array has the database's collation and the table has "C".
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


def send_puts(write: Write, puts: Sequence[PutCall]) -> Callable[[], list[PutResult]]:
    """Send the statements of many puts; return what receives their results."""
    # Of several under one key the first goes into the statement that creates tasks.
    first: dict[Key, PutCall] = {}
    for call in puts:
        first.setdefault(call.definition.key, call)
    # All daemons use the same order, so that two that put the same tasks cannot deadlock.
    fresh = [first[key] for key in sorted(first) if first[key].may_create]
    creating = [_send_creation(write.cursor, part) for part in _in_parts(fresh)]

    def receive() -> list[PutResult]:
        created = {Key(*row) for _, creation in creating for row in creation}
        for rows, _ in creating:
            for row in rows:
                if Key(row["task_name"], row["trigger_at"]) in created:
                    write.changes.add_due(row["host"], row["trigger_at"])
        return _put_results(write, puts, first, created)

    return receive


def _send_creation(cursor: Cursor, puts: Sequence[PutCall]) -> tuple[list[dict[str, Any]], Cursor]:
    rows = [_GIVEN.name(call.row()) for call in puts]
    for row in rows:
        row.update((name, row[name].encode().hex()) for name in BINARY)
    return rows, cursor.execute(_CREATE, (json.dumps(rows),))


def _put_results(
    write: Write, puts: Sequence[PutCall], first: Mapping[Key, PutCall], created: Container[Key]
) -> list[PutResult]:
    rest = [call for call in puts if call is not first[call.definition.key]]
    rest += [call for key, call in first.items() if key not in created]
    found = _existing(write.cursor, {call.definition.key for call in rest}) if rest else {}
    results = []
    for call in puts:
        key = call.definition.key
        if key in created and call is first[key]:
            task = new_task(call.definition, call.now)
            results.append(PutResult(PutOutcome.CREATED, task))
        else:
            results.append(_put_on(write, call, found.get(key)))
    return results


def _put_on(write: Write, call: PutCall, existing: Task | None) -> PutResult:
    """Return the result of a put that creates no task; one that may replace it locks it first."""
    outcome = decide_put(existing, call.definition, call.condition, call.now)
    if existing is None or outcome is PutOutcome.REPLACED:
        return tasks.put(write, call.definition, call.condition, call.now)
    return PutResult(outcome, existing)


def put_many(write: Write, definitions: Sequence[Definition], now: float) -> Sequence[PutResult]:
    """Run :func:`callme.store.tasks.put_many` in few statements."""
    puts = [
        PutCall(definition=definition, condition=PutCondition.NONE, now=now)
        for definition in definitions
    ]
    return [tasks.without_created_task(result) for result in send_puts(write, puts)()]


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
    """Return the tasks under some keys: two statements, however many they are."""
    names, times = zip(*((key.task_name, key.trigger_at) for key in keys), strict=True)
    found = cursor.execute(_EXISTING, (list(names), list(times))).fetchall()
    rows = [_EXISTING_COLUMNS.name(row) for row in found]
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
        # No task has an empty state.
        values: tuple[Any, ...] = ("", 0, 0)
        if version is not None:
            values = (version.state.value, version.created_at_ms, version.attempts_used)
        versions.append((key.task_name, key.trigger_at, *values))
    columns = [list(column) for column in zip(*versions, strict=True)]
    keys = [Key(*row) for row in cursor.execute(_MODIFIED, (*columns, limit))]
    found = _existing(cursor, keys) if keys else {}
    return {key: found.get(key) for key in keys}
