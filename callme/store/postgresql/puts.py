"""Creating tasks: many in one statement, and a look at those that stand there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from attrs import frozen

from ...core.task import Definition, new_task
from ...core.times import Key, to_ms
from .. import writes
from ..codec import DEFINITION_COLUMNS, Row, definition_values
from ..interface import Put, PutResult
from .cursor import Cursor
from .looks import standing

_MOST = 200
"""Tasks that go into one statement."""
_MOST_TEXT = 4 * 1024 * 1024
"""Characters of their payloads."""
_DEFINITION = {
    "task_name": "text",
    "trigger_at": "bigint",
    "callback": "text",
    "callback_method": "text",
    "payload": "text",
    "headers": "text",
    "expected_http_status": "text",
    "retry": "int",
    "retry_delay": "text",
    "max_delay": "int",
    "timeout": "int",
    "on_failure": "text",
    "on_success": "text",
    "host": "text",
    "expires_at": "bigint",
    "created_at": "bigint",
}
_CREATE = f"""
    INSERT INTO task ({DEFINITION_COLUMNS}, host, expires_at, state, due_at, created_at)
    SELECT {DEFINITION_COLUMNS.replace("payload", "decode(payload, 'hex')")}, host, expires_at,
        'scheduled', trigger_at, created_at
    FROM json_to_recordset(?::json)
        AS given ({", ".join(f"{name} {kind}" for name, kind in _DEFINITION.items())})
    ON CONFLICT (task_name, trigger_at) DO NOTHING
    RETURNING task_name, trigger_at
"""


@frozen
class PutTask:
    """An operation: see :meth:`callme.store.port.Store.put`."""

    definition: Definition
    now: float
    create: bool
    replace: bool

    def __call__(self, cursor: Cursor) -> PutResult:
        return send_puts(cursor, [self])()[0]


def send_puts(cursor: Cursor, puts: Sequence[PutTask]) -> Callable[[], list[PutResult]]:
    """Create tasks in one statement; return what looks at those that it did not create."""
    # Of several under one key the first goes into that statement, if any.
    first: dict[Key, PutTask] = {}
    for one in puts:
        first.setdefault(one.definition.key, one)
    # In one order for all daemons: two that put the same tasks wait, but never for each other.
    fresh = [first[key] for key in sorted(first) if first[key].create]
    creating = []
    for some in _in_parts(fresh):
        values = json.dumps([dict(zip(_DEFINITION, _row(one), strict=True)) for one in some])
        creating.append(cursor.execute(_CREATE, (values,)))

    def receive() -> list[PutResult]:
        made = {Key(*row) for creation in creating for row in creation}
        return _put_results(cursor, puts, first, made)

    return receive


def _put_results(
    cursor: Cursor, puts: Sequence[PutTask], first: Mapping[Key, PutTask], made: Container[Key]
) -> list[PutResult]:
    rest = [one for one in puts if one is not first[one.definition.key]]
    rest += [one for key, one in first.items() if key not in made]
    found = standing(cursor, {one.definition.key for one in rest}) if rest else {}
    results = []
    for one in puts:
        key = one.definition.key
        if key in made and one is first[key]:
            results.append(PutResult(Put.CREATED, new_task(one.definition, one.now)))
        elif key in found and not one.replace:
            results.append(found[key].answer(one.definition))
        else:
            results.append(_put_one(cursor, one))
    return results


def put_many(
    cursor: Cursor, tasks: Sequence[tuple[Definition, bool]], now: float
) -> Sequence[PutResult]:
    """Create many tasks."""
    puts = [PutTask(definition, now, create, replace=False) for definition, create in tasks]
    results = send_puts(cursor, puts)()
    return [_NEW if result.put is Put.CREATED else result for result in results]


_NEW = PutResult(Put.CREATED, None)


def _put_one(cursor: Cursor, one: PutTask) -> PutResult:
    return writes.put(cursor, one.definition, one.now, one.create, one.replace, binary)


def _row(one: PutTask) -> Row:
    values = list(definition_values(one.definition))
    values[4] = values[4].encode().hex()
    return (*values, to_ms(one.now))


def binary(definition: Definition) -> Row:
    """Return the values of a definition, its payload as bytes."""
    values = list(definition_values(definition))
    values[4] = values[4].encode()
    return tuple(values)


def _in_parts(puts: Sequence[PutTask]) -> Iterator[list[PutTask]]:
    part: list[PutTask] = []
    text = 0
    for one in puts:
        text += len(one.definition.payload)
        if part and (len(part) == _MOST or text > _MOST_TEXT):
            yield part
            part, text = [], len(one.definition.payload)
        part.append(one)
    if part:
        yield part
