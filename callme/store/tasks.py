"""Operations and queries on tasks by key: put, get, list, delete, reschedule."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from ..core.parameters import MAX_MINUTES
from ..core.task import (
    ATTEMPTS_PER_PAGE,
    Attempt,
    Definition,
    Reason,
    State,
    Task,
    new_task,
)
from ..core.times import MAX_TIMESTAMP, MINUTE, Key, to_ms
from ..core.transitions import MoveDecision, PutCondition, PutOutcome, decide_move, decide_put
from .codec import (
    ATTEMPT,
    KEY,
    KEY_IS,
    MAX_NUMBER,
    STORED_DEFINITION,
    SUMMARY,
    TASK,
    Columns,
    NamedRow,
    Row,
    to_attempt,
    to_key,
    to_task,
    where_key,
)
from .database import Write
from .interface import (
    PAGE_CHARACTERS,
    Cursor,
    Deleted,
    Page,
    PutResult,
    Rescheduled,
    TaskVersion,
)
from .listing.plan import select_page, select_previous
from .listing.selection import Selection


def insert_statement(rows: int, insert: str = "INSERT") -> str:
    """Return the statement that inserts scheduled tasks whose keys are free.

    Each row has the values of the definition, ``due_at`` and ``created_at_ms``.

    :param rows: the number of rows.
    :param insert: the verb, which may have a conflict clause.
    """
    row = f"({STORED_DEFINITION.placeholders()}, 'scheduled', ?, ?)"
    return f"""
        {insert} INTO task ({STORED_DEFINITION}, state, due_at, created_at_ms)
        VALUES {", ".join([row] * rows)}
        ON CONFLICT (task_name, trigger_at) DO NOTHING
    """


INSERT = insert_statement(1)
_REPLACE = f"""
    UPDATE task
    SET ({STORED_DEFINITION}, due_at) = ({STORED_DEFINITION.placeholders()}, ?),
        attempts_used = 0, created_at_ms = ?, rescheduled_from = NULL,
        rescheduled_at_ms = NULL, first_lateness_ms = NULL
    WHERE task_name = ? AND trigger_at = ? AND state = 'scheduled'
"""
_GET = f"SELECT {TASK} FROM task WHERE {KEY_IS}"
_GET_ROW = f"SELECT {TASK} FROM task WHERE task_id = ?"
_LOCK = f"{_GET} /* FOR UPDATE */"
_VERSION = f"SELECT state, created_at_ms, attempts_used FROM task WHERE {KEY_IS}"
_ATTEMPTS = f"""
    SELECT {ATTEMPT} FROM attempt WHERE task_id = ? AND number <= ?
    ORDER BY number DESC LIMIT {ATTEMPTS_PER_PAGE}
"""
_ON_RECORD = """
    SELECT (SELECT min(number) FROM attempt WHERE task_id = ?),
        (SELECT max(number) FROM attempt WHERE task_id = ?)
"""
EXISTS = "SELECT 1 FROM task WHERE task_name = ? LIMIT 1"
STARTED_AFRESH = (
    "state = 'scheduled', reason = NULL, detail = '', attempts_used = 0, finished_at_ms = NULL, "
    "first_lateness_ms = NULL"
)
"""Assignments of a move, except those of times."""
_MOVE = f"""
    UPDATE task
    SET trigger_at = ?, expires_at = ? + 60 * max_delay, due_at = ?, rescheduled_from = ?,
        rescheduled_at_ms = ?, {STARTED_AFRESH}
    WHERE task_id = ?
"""
CANDIDATE = Columns(("task_name", "trigger_at", "task_id", "state", "max_delay", "host"))
_ONE = f"SELECT {CANDIDATE} FROM task WHERE {KEY_IS} /* FOR UPDATE */"
_ONE_ROW = f"SELECT {CANDIDATE} FROM task WHERE task_id = ? /* FOR UPDATE */"
_OF_NAME = f"SELECT {CANDIDATE} FROM task WHERE task_name = ? ORDER BY trigger_at /* FOR UPDATE */"
MAKE_ROOM = "UPDATE task SET trigger_at = ? WHERE task_id = ?"
"""Statement that moves a task to an unused minute, until its final minute is free."""
_RUNNING = f"SELECT {KEY} FROM task WHERE task_name = ? AND state = 'running'"


def put(write: Write, definition: Definition, condition: PutCondition, now: float) -> PutResult:
    """Create a task, replace a scheduled task, or return the reason for doing neither.

    :param now: the time of the request, seconds since 1970.
    """
    cursor = write.cursor
    values = cursor.definition_values(definition)
    key = (definition.task_name, definition.trigger_at)
    if_absent = decide_put(None, definition, condition, now)
    existing = None
    while existing is None:
        if if_absent is PutOutcome.CREATED:
            cursor.execute(INSERT, (*values, definition.trigger_at, to_ms(now)))
            if cursor.rowcount == 1:
                write.changes.add_due(values[_HOST], definition.trigger_at)
                return PutResult(PutOutcome.CREATED, new_task(definition, now))
        # The row is locked, because the decision must still be valid at the commit.
        existing = _get(cursor, _LOCK, key)
        if existing is None and if_absent is not PutOutcome.CREATED:
            return PutResult(if_absent, None)
        # If there is no task now, another daemon has just deleted it.
    outcome = decide_put(existing, definition, condition, now)
    if outcome is not PutOutcome.REPLACED:
        return PutResult(outcome, existing)
    cursor.execute(_REPLACE, (*values, definition.trigger_at, to_ms(now), *key))
    write.changes.keys.append(definition.key)
    write.changes.add_due(values[_HOST], definition.trigger_at)
    return PutResult(outcome, new_task(definition, now, existing))


_HOST = STORED_DEFINITION.index("host")
CREATED = PutResult(PutOutcome.CREATED, None)


def put_many(write: Write, definitions: Sequence[Definition], now: float) -> Sequence[PutResult]:
    """Put tasks in order, without a condition; the results omit created tasks."""
    return [
        without_created_task(put(write, definition, PutCondition.NONE, now))
        for definition in definitions
    ]


def without_created_task(result: PutResult) -> PutResult:
    """Return a result without the task that it created, in the form that batches return."""
    return CREATED if result.outcome is PutOutcome.CREATED else result


def get(cursor: Cursor, key: Key, attempts_to: int | None = None) -> Task | None:
    """Return a task with a page of its attempts; ``None`` if there is no such task.

    :param attempts_to: the number of the last attempt on the page; by default the latest.
    """
    if (number := key.row_number) is not None:
        return _get(cursor, _GET_ROW, (number,), attempts_to)
    return _get(cursor, _GET, (key.task_name, key.trigger_at), attempts_to)


def _get(cursor: Cursor, query: str, values: Row, attempts_to: int | None = None) -> Task | None:
    row = cursor.execute(query, values).fetchone()
    if row is None:
        return None
    named = TASK.name(row)
    last = MAX_NUMBER if attempts_to is None else attempts_to
    found = cursor.execute(_ATTEMPTS, (named["task_id"], last)).fetchall()
    attempts = tuple(to_attempt(ATTEMPT.name(attempt)) for attempt in reversed(found))
    return with_attempts(cursor, named, attempts, is_last_page=attempts_to is None)


def with_attempts(
    cursor: Cursor, row: NamedRow, found: Sequence[Attempt | None], *, is_last_page: bool = True
) -> Task:
    """Return the task in a row with a page of its attempts.

    :param row: the columns of the task, including ``task_id``.
    :param found: the attempts; ``None`` for a damaged attempt.
    :param is_last_page: whether the page contains the latest attempt, if there are attempts.
    """
    attempts = tuple(attempt for attempt in found if attempt is not None)
    task = to_task(row, attempts)
    if len(attempts) < len(found):
        task = evolve(task, damaged=(*task.damaged, "attempts"))
    first, last = 1, attempts[-1].number if attempts else 0
    if not is_last_page or (attempts and attempts[0].number > 1):
        task_id = row["task_id"]
        bounds = cursor.execute(_ON_RECORD, (task_id, task_id)).fetchone()
        first, last = bounds[0] or 1, bounds[1] or 0
    return evolve(task, first_attempt=first, last_attempt=last)


def get_if_modified(
    cursor: Cursor, known: Mapping[Key, TaskVersion | None], limit: int
) -> Mapping[Key, Task | None]:
    """Return the tasks that differ from their known version, up to a limit.

    :param known: versions by key; a task whose version is ``None`` is returned in any case.
    :param limit: the maximum number of tasks to return; if it is reached, there may be more.
    :return: tasks with their attempts; ``None`` for a task that does not exist.
    """
    tasks: dict[Key, Task | None] = {}
    for key, version in known.items():
        if len(tasks) == limit:
            break
        row = cursor.execute(_VERSION, (key.task_name, key.trigger_at)).fetchone()
        if version is None or row is None or row != version.stored():
            tasks[key] = get(cursor, key)
    return tasks


def list_page(
    cursor: Cursor,
    /,
    *,
    start_from: Key | None = None,
    limit: int = 100,
    by_due: bool = False,
    **filters: Any,
) -> Page | None:
    """Return tasks ordered by name, then time, without payloads and attempts.

    A page ends before its ``limit`` if its tasks are large (see
    :data:`callme.store.interface.PAGE_CHARACTERS`) or if too many tasks were examined without a
    match (see :data:`callme.store.listing.sources.MAX_EXAMINED`).

    :param start_from: the first key to return, inclusive.
    :param by_due: whether to order by time, then name, instead.
    :param filters: those of :class:`callme.store.listing.selection.Selection`.
    :return: ``None`` if the filter ``task_name`` names no task at all.
    """
    selection = Selection(**filters)
    name = selection.task_name
    if name is not None and cursor.execute(EXISTS, (name,)).fetchone() is None:
        return None
    rows, end = select_page(cursor, selection, start_from, limit + 1, by_due=by_due)
    page = _fitting(rows, limit)
    return page if page.next is not None else Page(page.tasks, end)


def get_summaries(cursor: Cursor, keys: Iterable[Key]) -> Sequence[Task]:
    """Return the existing tasks under some keys, without payloads and attempts."""
    statement = f"SELECT {SUMMARY} FROM task WHERE"
    found = []
    for where, values in map(where_key, keys):
        row = cursor.execute(f"{statement} {where}", values).fetchone()
        if row is not None:
            found.append(to_task(TASK.name(row)))
    return found


def previous_page(
    cursor: Cursor,
    /,
    *,
    start_from: Key,
    limit: int = 100,
    by_due: bool = False,
    **filters: Any,
) -> Key | None:
    """Return the start of the page before another page; ``None`` if that is the first page.

    :param start_from: the first key of the other page. The other parameters are those of
        :func:`list_page`.
    """
    return select_previous(cursor, Selection(**filters), start_from, limit, by_due=by_due)


def _fitting(rows: Iterable[Row], limit: int) -> Page:
    """Return a page of some rows, with the key of the first row that does not fit on it."""
    tasks: list[Task] = []
    size = 0
    for row in rows:
        named = TASK.name(row)
        if len(tasks) == limit or size >= PAGE_CHARACTERS:
            return Page(tasks, to_key(named))
        tasks.append(to_task(named))
        size += sum(len(value) for value in row if isinstance(value, str))
    return Page(tasks, None)


def delete(write: Write, key: Key) -> Deleted | None:
    """Delete one task and its attempts, unless it is running; return ``None`` without a task."""
    cursor = write.cursor
    where, values = where_key(key)
    cursor.execute(f"DELETE FROM task WHERE {where} AND state != 'running'", values)
    if cursor.rowcount:
        write.changes.keys.append(key)
        return Deleted(count=1)
    exists = cursor.execute(f"SELECT 1 FROM task WHERE {where}", values).fetchone()
    return Deleted(count=0, running=[key]) if exists else None


def delete_name(write: Write, task_name: str) -> Deleted | None:
    """Delete all tasks of a name except running ones; return ``None`` without a task."""
    cursor = write.cursor
    cursor.execute("DELETE FROM task WHERE task_name = ? AND state != 'running'", (task_name,))
    count = cursor.rowcount
    if count:
        write.changes.names.append(task_name)
    running = [to_key(KEY.name(row)) for row in cursor.execute(_RUNNING, (task_name,))]
    return Deleted(count=count, running=running) if count or running else None


@frozen(kw_only=True)
class Candidate:
    """Task that may be rescheduled, with the columns that the decision depends on.

    :ivar is_damaged: whether one of these columns cannot be read, which excludes a reschedule.
    """

    key: Key
    task_id: int
    state: State
    max_delay: int
    host: str
    is_damaged: bool = False

    @classmethod
    def of(cls, row: Row) -> Candidate:
        """Return the task in a row of :data:`CANDIDATE`."""
        named = CANDIDATE.name(row)
        state, max_delay, host = named["state"], named["max_delay"], named["host"]
        key = to_key(named)
        is_intact = (
            key.row_number is None
            and state in _STATES
            and type(max_delay) is int
            and 0 <= max_delay <= MAX_MINUTES
            and type(host) is str
        )
        return cls(
            key=key,
            task_id=named["task_id"],
            state=_STATES.get(state, State.FAILED),
            max_delay=max_delay,
            host=host,
            is_damaged=not is_intact,
        )

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.key.task_name

    @property
    def trigger_at(self) -> int:
        """The minute of the task: seconds since 1970."""
        return self.key.trigger_at

    def decide(self, trigger_at: int, now: float, *, include_all_states: bool) -> MoveDecision:
        """Return the decision whether the task moves to a minute."""
        if self.is_damaged and self.state is not State.RUNNING:
            return MoveDecision.DAMAGED
        expires_at = trigger_at + MINUTE * self.max_delay
        return decide_move(self.state, expires_at, now, include_all_states=include_all_states)

    def move(self, trigger_at: int, now: float) -> Row:
        """Return the values of the statement that moves the task to a minute."""
        return (trigger_at, trigger_at, trigger_at, self.trigger_at, to_ms(now), self.task_id)


_STATES = {state.value: state for state in State}
SKIPPED = {
    MoveDecision.RUNNING: State.RUNNING.value,
    MoveDecision.TOO_LATE: Reason.TOO_LATE.value,
    MoveDecision.DAMAGED: "damaged",
}
"""Reasons why a selected task is not moved."""


def reschedule(
    write: Write, key: Key, trigger_at: int, now: float, *, include_all_states: bool
) -> Rescheduled | None:
    """Move one task to a new minute.

    :param include_all_states: whether a task that has not failed may move, unless it is running.
    :return: ``None`` if there is no such task.
    """
    cursor = write.cursor
    if (number := key.row_number) is not None:
        row = cursor.execute(_ONE_ROW, (number,)).fetchone()
    else:
        row = cursor.execute(_ONE, (key.task_name, key.trigger_at)).fetchone()
    if row is None:
        return None
    task = Candidate.of(row)
    decision = task.decide(trigger_at, now, include_all_states=include_all_states)
    if decision is MoveDecision.DAMAGED:
        return Rescheduled(conflict=f"{key} is damaged: it can be deleted, and not rescheduled")
    if decision is MoveDecision.NOT_FAILED:
        advice = ": add all=true to move it"
        return Rescheduled(conflict=f"{key} is {task.state.value}, not failed{advice}")
    if decision is MoveDecision.RUNNING:
        if not include_all_states:
            return Rescheduled(conflict=f"{key} is running: repeat the request when it has ended")
        return Rescheduled(skipped=[(key, SKIPPED[decision])])
    to = Key(key.task_name, trigger_at)
    if to != key and cursor.execute(_ONE, (to.task_name, to.trigger_at)).fetchone():
        return Rescheduled(conflict=f"another task has the key {to}: use another minute")
    if decision is MoveDecision.TOO_LATE:
        return Rescheduled(skipped=[(key, SKIPPED[decision])])
    cursor.execute(_MOVE, task.move(trigger_at, now))
    write.changes.keys.append(key)
    write.changes.add_due(task.host, trigger_at)
    return Rescheduled(moved=[(key, to)])


def reschedule_name(
    write: Write, task_name: str, trigger_at: int, now: float, *, include_all_states: bool
) -> Rescheduled | None:
    """Move all movable tasks of a name, in the order of their times, to the first free minutes.

    :param trigger_at: the first minute that a task may move to.
    :param include_all_states: as for :func:`reschedule`.
    :return: ``None`` if the name has no task.
    """
    cursor = write.cursor
    rows = cursor.execute(_OF_NAME, (task_name,)).fetchall()
    if not rows:
        return None
    movable: list[Candidate] = []
    skipped: list[tuple[Key, str]] = []
    taken = set()
    for task in map(Candidate.of, rows):
        decision = task.decide(trigger_at, now, include_all_states=include_all_states)
        if decision is MoveDecision.MOVE:
            movable.append(task)
            continue
        if task.key.row_number is None:
            taken.add(task.trigger_at)
        if decision in SKIPPED:
            skipped.append((task.key, SKIPPED[decision]))
    minutes = _free_minutes(trigger_at, len(movable), taken)
    if minutes and minutes[-1] > MAX_TIMESTAMP:
        return Rescheduled(conflict="there are not enough free minutes before the year 10000")
    # First the tasks move to unused minutes: no two tasks of a name may share a minute even within
    # the transaction.
    cursor.executemany(MAKE_ROOM, [(-MINUTE * task.task_id, task.task_id) for task in movable])
    moves = list(zip(movable, minutes, strict=True))
    cursor.executemany(_MOVE, [task.move(to, now) for task, to in moves])
    if moves:
        write.changes.names.append(task_name)
    for task, to in moves:
        write.changes.add_due(task.host, to)
    return Rescheduled(
        moved=[(task.key, Key(task_name, to)) for task, to in moves], skipped=skipped
    )


def _free_minutes(first: int, number: int, taken: Container[int]) -> list[int]:
    """Return the first free minutes at or after a minute."""
    return list(
        itertools.islice(
            (minute for minute in itertools.count(first, MINUTE) if minute not in taken), number
        )
    )
