"""The incremental search for rows that another program has damaged."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ...core.times import Key
from ..codec import ATTEMPT, TASK, Columns, to_attempt, to_task
from ..interface import PAGE_CHARACTERS, Cursor

MAX_ATTEMPTS_EXAMINED = 1_000
"""Maximum number of attempts that one query examines."""
_TASKS = f"SELECT {TASK} FROM task WHERE task_id > ? ORDER BY task_id LIMIT ?"
_ATTEMPT_COLUMNS = Columns((*ATTEMPT, "task_id"))
_ATTEMPTS = f"""
    SELECT {_ATTEMPT_COLUMNS} FROM attempt WHERE task_id > ? AND task_id <= ? LIMIT ?
"""


@frozen(kw_only=True)
class DamagedTask:
    """Task with stored values that cannot be read.

    :ivar columns: the names of the damaged columns; ``attempts`` for a damaged attempt.
    """

    key: Key
    row: int
    columns: Sequence[str]


@frozen(kw_only=True)
class Examined:
    """Result of examining a part of the tasks, in the order of their rows.

    :ivar last_row: the number of the last examined row; ``None`` if there was none.
    """

    damaged: Sequence[DamagedTask]
    last_row: int | None


def find_damaged(cursor: Cursor, after: int, limit: int) -> Examined:
    """Examine the next tasks for damage.

    :param after: the number of the row after which the examination begins.
    :param limit: the maximum number of tasks.
    """
    found: dict[int, DamagedTask] = {}
    keys: dict[int, Key] = {}
    characters, row = 0, after
    for values in cursor.execute(_TASKS, (after, limit)):
        named = TASK.name(values)
        task, row = to_task(named), named["task_id"]
        keys[row] = task.key
        if task.damaged:
            found[row] = DamagedTask(key=task.key, row=row, columns=task.damaged)
        characters += sum(len(value) for value in values if isinstance(value, str))
        if characters >= PAGE_CHARACTERS:
            break
    for values in cursor.execute(_ATTEMPTS, (after, row, MAX_ATTEMPTS_EXAMINED)):
        attempt = _ATTEMPT_COLUMNS.name(values)
        task_id = attempt.pop("task_id")
        if to_attempt(attempt) is None and task_id in keys:
            known = found.get(task_id)
            columns = () if known is None else known.columns
            if "attempts" not in columns:
                found[task_id] = DamagedTask(
                    key=keys[task_id], row=task_id, columns=(*columns, "attempts")
                )
    return Examined(damaged=list(found.values()), last_row=row if keys else None)
