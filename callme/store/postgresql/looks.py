"""Many tasks looked at in a few statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ...core.task import Definition, Task
from ...core.times import Key
from ..codec import (
    ATTEMPT_COLUMNS,
    DEFINITION_COLUMNS,
    TASK_STATE_COLUMNS,
    Row,
    to_attempt,
    to_key,
    to_task,
)
from ..interface import Put, PutResult, TaskVersion
from ..writes import is_same_definition
from .cursor import Cursor

_STANDING = f"""
    SELECT task_id, {DEFINITION_COLUMNS}, {TASK_STATE_COLUMNS} FROM task
    WHERE (task_name, trigger_at) IN (SELECT * FROM unnest(?::text[], ?::bigint[]))
"""
_ATTEMPTS = f"SELECT task_id, {ATTEMPT_COLUMNS} FROM attempt WHERE task_id = ANY(?) ORDER BY number"
# Explicit: the names given have the collation of the database, those of tasks have not.
_CHANGED = """
    SELECT asked.task_name, asked.trigger_at
    FROM unnest(?::text[], ?::bigint[], ?::text[], ?::bigint[], ?::int[])
        AS asked (task_name, trigger_at, state, created_at, attempts_used)
    LEFT JOIN task
        ON task.task_name = asked.task_name COLLATE "C" AND task.trigger_at = asked.trigger_at
    WHERE (task.state, task.created_at, task.attempts_used)
        IS DISTINCT FROM (asked.state, asked.created_at, asked.attempts_used)
    LIMIT ?
"""


@frozen
class StandingTask:
    """A task as it stands: its row, and those of its attempts."""

    row: Row
    attempts: Sequence[Row]

    @property
    def task(self) -> Task:
        """The task, whole."""
        return to_task(self.row[1:], tuple(map(to_attempt, self.attempts)))

    def answer(self, definition: Definition) -> PutResult:
        """Return what a put that does not replace it is answered with."""
        unchanged = is_same_definition(self.row[1:], definition)
        return PutResult(Put.UNCHANGED if unchanged else Put.DIFFERENT, self.task)


def standing(cursor: Cursor, keys: Iterable[Key]) -> dict[Key, StandingTask]:
    """Look at the tasks of some keys: in two statements, however many they are."""
    names, times = zip(*((key.task_name, key.trigger_at) for key in keys), strict=True)
    rows = cursor.execute(_STANDING, (list(names), list(times))).fetchall()
    attempts: dict[int, list[Row]] = {row[0]: [] for row in rows}
    for task_id, *attempt in cursor.execute(_ATTEMPTS, (list(attempts),)):
        attempts[task_id].append(tuple(attempt))
    return {to_key(row[1:]): StandingTask(row, attempts[row[0]]) for row in rows}


def changed(
    cursor: Cursor, seen: Mapping[Key, TaskVersion | None], limit: int
) -> Mapping[Key, Task | None]:
    """Compare tasks with what was seen of them: in one statement, however many they are."""
    asked: list[tuple[Any, ...]] = []
    for key, known in seen.items():
        # No task has an empty state.
        was = ("", 0, 0)
        if known is not None:
            was = (known.state.value, known.created_at_ms, known.attempts_used)
        asked.append((key.task_name, key.trigger_at, *was))
    columns = [list(column) for column in zip(*asked, strict=True)]
    keys = [Key(*row) for row in cursor.execute(_CHANGED, (*columns, limit))]
    found = standing(cursor, keys) if keys else {}
    return {key: found[key].task if key in found else None for key in keys}
