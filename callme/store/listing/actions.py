"""Bulk actions: delete and reschedule many tasks, a limited number in each transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from attrs import frozen

from ...core.task import State
from ...core.times import MAX_TIMESTAMP, MINUTE, Key, to_ms
from ...core.transitions import MoveDecision
from ..database import Write
from ..interface import Cursor, Deleted, Rescheduled
from ..queue import NEXT_FREE
from ..tasks import CANDIDATE, MAKE_ROOM, SKIPPED, STARTED_AFRESH, Candidate
from .selection import Selection
from .sources import KEYS

TASKS_PER_STEP = 100
"""Maximum number of tasks that one transaction changes, in a few milliseconds."""
NO_FREE_MINUTE = "no_free_minute"
"""The reason why a task is not moved if no minute before the year 10000 is free for it."""
_COLUMNS = ", ".join(f"task.{name}" for name in (*CANDIDATE, "rescheduled_from"))
_TAKEN = f"""
    SELECT task.task_name, task.trigger_at FROM (VALUES {{rows}}) AS wanted JOIN {KEYS}
    ON task.task_name = wanted.column1
        AND task.trigger_at BETWEEN wanted.column2 AND wanted.column3
"""
_MOVE_ALL = f"""
    UPDATE task
    SET trigger_at = moved.column2, expires_at = moved.column2 + 60 * max_delay,
        due_at = moved.column2, rescheduled_from = moved.column3,
        rescheduled_at_ms = moved.column4, {STARTED_AFRESH}
    FROM (VALUES {{rows}}) AS moved
    WHERE task_id = moved.column1
"""


@frozen(kw_only=True)
class Step:
    """Part of an action: some of its tasks, in the order of their keys.

    :ivar selection: the filters of the action, which each task must still match.
    """

    selection: Selection
    keys: Sequence[Key]


@frozen(kw_only=True)
class MoveStep(Step):
    """Part of a reschedule.

    :ivar minutes: the new minute of each task; if it is not free, the task moves to the next free
        minute of its name.
    :ivar include_all_states: whether tasks that have not failed move as well.
    :ivar start_from: the first key of this request, if an earlier request began the action.
    :ivar after: the last key that the previous step moved a task to.
    """

    minutes: Sequence[int]
    include_all_states: bool
    start_from: Key | None
    after: Key | None

    def has_moved(self, key: Key, rescheduled_from: int | None) -> bool:
        """Return whether an earlier step has moved a task to its place, from before ``start_from``.

        Otherwise a task that moves to a later minute would be found again and again.
        """
        start = self.start_from
        return (
            start is not None
            and type(rescheduled_from) is int
            and key.task_name == start.task_name
            and rescheduled_from < start.trigger_at
        )


def delete_step(write: Write, step: Step) -> Deleted:
    """Delete the tasks of a step, except running ones."""
    found = list(_find(write.cursor, step, lock=True))
    gone = [task for task, _ in found if task.state is not State.RUNNING]
    if gone:
        places = ", ".join("?" for _ in gone)
        ids = tuple(task.task_id for task in gone)
        write.cursor.execute(f"DELETE FROM task WHERE task_id IN ({places})", ids)
        write.changes.keys += [task.key for task in gone]
    return _deleted(found)


def preview_delete(cursor: Cursor, step: Step) -> Deleted:
    """Return the result that :func:`delete_step` would have."""
    return _deleted(list(_find(cursor, step, lock=False)))


def _deleted(found: Sequence[tuple[Candidate, Any]]) -> Deleted:
    running = [task.key for task, _ in found if task.state is State.RUNNING]
    gone = [task.key for task, _ in found if task.state is not State.RUNNING]
    return Deleted(count=len(gone), keys=gone, running=running)


def move_step(write: Write, step: MoveStep, now: float) -> Rescheduled:
    """Move the tasks of a step."""
    moves, skipped = _plan(write.cursor, step, now, lock=True)
    if moves:
        left = {task.key for task, _ in moves}
        if any(Key(task.task_name, to) in left for task, to in moves):
            # First the tasks move to unused minutes: no two tasks of a name may share a minute even
            # within the transaction.
            away = [(-MINUTE * task.task_id, task.task_id) for task, _ in moves]
            write.cursor.executemany(MAKE_ROOM, away)
        rows = [(task.task_id, to, task.trigger_at, to_ms(now)) for task, to in moves]
        _with_rows(write.cursor, _MOVE_ALL, rows)
    for task, to in moves:
        write.changes.keys.append(task.key)
        write.changes.add_due(task.host, to)
    return _rescheduled(moves, skipped)


def preview_move(cursor: Cursor, step: MoveStep, now: float) -> Rescheduled:
    """Return the result that :func:`move_step` would have."""
    return _rescheduled(*_plan(cursor, step, now, lock=False))


_Moves = Sequence[tuple[Candidate, int]]
_Skipped = Sequence[tuple[Key, str]]


def _rescheduled(moves: _Moves, skipped: _Skipped) -> Rescheduled:
    moved = [(task.key, Key(task.task_name, to)) for task, to in moves]
    return Rescheduled(moved=moved, skipped=skipped)


def _plan(cursor: Cursor, step: MoveStep, now: float, *, lock: bool) -> tuple[_Moves, _Skipped]:
    """Return the tasks of a step that move, with their minutes, and the reasons of the others."""
    wanted = dict(zip(step.keys, step.minutes, strict=True))
    movable: list[Candidate] = []
    skipped: list[tuple[Key, str]] = []
    for task, rescheduled_from in _find(cursor, step, lock=lock):
        if step.has_moved(task.key, rescheduled_from):
            continue
        decision = task.decide(wanted[task.key], now, include_all_states=step.include_all_states)
        if decision is MoveDecision.MOVE:
            movable.append(task)
        elif decision in SKIPPED:
            skipped.append((task.key, SKIPPED[decision]))
    minutes = _free_minutes(cursor, movable, wanted, step.after)
    moves = []
    for task, minute in zip(movable, minutes, strict=True):
        if minute > MAX_TIMESTAMP:
            skipped.append((task.key, NO_FREE_MINUTE))
        else:
            moves.append((task, minute))
    return moves, skipped


def _find(cursor: Cursor, step: Step, *, lock: bool) -> Iterator[tuple[Candidate, int | None]]:
    """Yield the tasks of a step that still match, each with its ``rescheduled_from``."""
    conditions = list(step.selection.conditions().values())
    where = " AND ".join(["TRUE", *(condition.text for condition in conditions)])
    values = [value for condition in conditions for value in condition.values]
    for is_row, table, on in (
        (False, KEYS, "task.task_name = wanted.column1 AND task.trigger_at = wanted.column2"),
        (True, "task", "task.task_id = wanted.column2"),
    ):
        keys = [
            (key.task_name, key.trigger_at)
            for key in step.keys
            if (key.row_number is not None) == is_row
        ]
        if not keys:
            continue
        statement = (
            f"SELECT {_COLUMNS} FROM (VALUES {{rows}}) AS wanted JOIN {table} ON {on} "
            f"WHERE {where} ORDER BY task.task_name, task.trigger_at"
            + (" /* FOR UPDATE OF TASK */" if lock else "")
        )
        for *row, rescheduled_from in _with_rows(cursor, statement, keys, values):
            yield Candidate.of(row), rescheduled_from


def _free_minutes(
    cursor: Cursor, movable: Sequence[Candidate], wanted: Mapping[Key, int], after: Key | None
) -> list[int]:
    """Return the minute of each task: the requested one, or the next free one of its name."""
    last = {} if after is None else {after.task_name: after.trigger_at}
    counts = Counter(task.task_name for task in movable)
    spans: dict[str, tuple[int, int]] = {}
    for task in movable:
        name, at = task.task_name, wanted[task.key]
        at = max(at, last.get(name, at - MINUTE) + MINUTE)
        spans[name] = (spans.get(name, (at, at))[0], at + MINUTE * counts[name])
    rows = [(name, *span) for name, span in spans.items()]
    taken = {Key(*row) for row in _with_rows(cursor, _TAKEN, rows)} if rows else set()
    # The minutes that these tasks leave become free.
    taken -= {task.key for task in movable}
    found = []
    for task in movable:
        name, at = task.task_name, wanted[task.key]
        at = max(at, last.get(name, at - MINUTE) + MINUTE)
        while Key(name, at) in taken:
            at += MINUTE
        if at > spans[name][1]:
            at = _free_from(cursor, name, at)
        last[name] = at
        found.append(at)
    return found


def _free_from(cursor: Cursor, name: str, at: int) -> int:
    """Return the first free minute of a name at or after a minute."""
    key = "SELECT 1 FROM task WHERE task_name = ? AND trigger_at = ?"
    if cursor.execute(key, (name, at)).fetchone() is None:
        return at
    return int(cursor.execute(NEXT_FREE, (name, at)).fetchone()[0])


def _with_rows(
    cursor: Cursor, statement: str, rows: Sequence[Sequence[Any]], values: Sequence[Any] = ()
) -> Cursor:
    """Run a statement whose placeholders are the rows of a table, followed by other values."""
    row = f"({', '.join('?' for _ in rows[0])})"
    text = statement.replace("{rows}", ", ".join([row] * len(rows)))
    return cursor.execute(text, (*chain.from_iterable(rows), *values))
