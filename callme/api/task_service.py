"""Commands on tasks for the API and the web UI, and the problems of refused commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock

from ..core.parameters import MAX_MINUTES
from ..core.representation import task_summary
from ..core.task import Definition, Reason, State
from ..core.text.durations import rough_duration
from ..core.times import MINUTE, Key, rfc3339
from ..core.transitions import PutCondition, PutOutcome
from ..errors import FieldError
from ..reports import failures
from ..reports.audit_log import AuditLog
from ..server.auth import Author
from ..server.problem import Problem
from ..store import tasks
from ..store.database import Store
from ..store.interface import Deleted, PutResult, Rescheduled
from ..store.listing import actions
from ..store.listing.plan import select_keys
from ..store.listing.selection import Selection
from .problems import no_task
from .responses import shield

_REFUSALS = {
    PutOutcome.MISSING: (
        412,
        "there is no task {key} to replace: a PUT without If-Match creates it",
    ),
    PutOutcome.EXISTS: (
        412,
        "{key} exists already: a PUT without If-None-Match keeps it if it is equal, "
        "and one with If-Match: * replaces it",
    ),
    PutOutcome.CONFLICT: (
        409,
        "another definition exists under {key}: a PUT with If-Match: * replaces it",
    ),
    PutOutcome.NOT_SCHEDULED: (
        409,
        "another definition exists under {key}, which is {state}: "
        "use another minute, or DELETE that task{when}",
    ),
    PutOutcome.NEVER_RUNS: (422, "the task could never run"),
}


def put_problem(definition: Definition, result: PutResult, now: float) -> Problem | None:
    """Return the problem of a refused put; ``None`` for any other."""
    refusal = _REFUSALS.get(result.outcome)
    if refusal is None:
        return None
    status, text = refusal
    if result.outcome is PutOutcome.NEVER_RUNS:
        return _never_runs(definition, now)
    task = result.task
    state = None if task is None else task.state
    when = " when it has ended" if state is State.RUNNING else ""
    return Problem(
        status,
        text.format(key=definition.key, state=state and state.value, when=when),
        extensions={} if task is None else {"task": task_summary(task)},
    )


def _never_runs(definition: Definition, now: float) -> Problem:
    last = rfc3339(definition.expires_at * 1000)
    past = f"trigger_at is {_past(definition.trigger_at, now)}"
    detail = f"max_delay has passed: {past}, and the call had to start before {last}"
    status, text = _REFUSALS[PutOutcome.NEVER_RUNS]
    advice = _advice_for_past(definition.trigger_at)
    return Problem(status, f"{text}: {past}; {advice}", errors=[FieldError("/trigger_at", detail)])


def _past(trigger_at: int, now: float) -> str:
    return f"{rough_duration(now - trigger_at)} in the past"


def _advice_for_past(trigger_at: int) -> str:
    """Return advice for a minute in the past."""
    # The number may be intended as a duration in minutes, of a year at most.
    if trigger_at < MAX_MINUTES:
        return "a duration has a unit, such as +5m"
    return "expected a time to come, or now"


@frozen(kw_only=True)
class Bulk:
    """Bulk action on the tasks with given keys, or on all tasks that match filters.

    :ivar keys: the keys, in any order; empty for all tasks that match.
    :ivar selection: the filters, which tasks with given keys must match too.
    :ivar filters: the filters as text, for the log. With keys, the log names each task instead.
    :ivar start_from: the first key to examine, inclusive.
    :ivar limit: the maximum number of tasks.
    :ivar is_dry_run: whether to change nothing.
    """

    keys: Sequence[Key] = ()
    selection: Selection = field(factory=Selection)
    filters: str = ""
    start_from: Key | None = None
    limit: int
    is_dry_run: bool = False


@frozen(kw_only=True)
class Move:
    """Minutes that tasks are moved to.

    :ivar trigger_at: the first minute: seconds since 1970.
    :ivar spread: the number of minutes that the tasks are distributed over; 0 for a single minute.
    :ivar include_all_states: whether tasks that have not failed move as well.
    """

    trigger_at: int
    spread: int = 0
    include_all_states: bool = False

    def minutes(self, number: int) -> list[int]:
        """Return the minute of each of a number of tasks."""
        return [self.trigger_at + MINUTE * (self.spread * i // number) for i in range(number)]


@define(eq=False, kw_only=True)
class TaskService:
    """Commands on tasks, which raise :exc:`Problem` if they are refused.

    :param now: returns the wall-clock time: seconds since 1970.
    :param audit: logs changes.
    """

    _store: Store
    _now: Callable[[], float]
    _audit: AuditLog
    # The lock prevents that steps of several actions share a transaction, which would be long.
    _step_lock: DeferredLock = field(factory=DeferredLock, init=False)

    async def put(
        self, definition: Definition, condition: PutCondition, now: float, *, by: Author
    ) -> PutResult:
        """Create or replace a task, or keep an equal task.

        :param now: the time of the request: seconds since 1970.
        :param by: the client.
        :raises Problem: when the put is refused.
        """
        result = await self._store.write(tasks.put, definition, condition, now)
        problem = put_problem(definition, result, now)
        if problem is not None:
            raise problem
        self._audit.put(by, definition, result.outcome)
        return result

    async def reschedule(
        self, target: Key | str, trigger_at: int, *, include_all_states: bool, by: Author
    ) -> Rescheduled:
        """Move one task, or those of a name, to another minute.

        :param by: the client.
        :raises Problem: when there is no such task, or when none of them can be moved.
        """
        now = self._now()
        operation: Callable[..., Rescheduled | None] = (
            tasks.reschedule if isinstance(target, Key) else tasks.reschedule_name
        )
        result = await self._store.write(
            operation, target, trigger_at, now, include_all_states=include_all_states
        )
        if result is None:
            raise await no_task(self._store, target, by.prefix)
        if result.conflict is not None:
            raise Problem(409, result.conflict)
        if not result.moved and any(
            reason == Reason.TOO_LATE.value for _, reason in result.skipped
        ):
            advice = _advice_for_past(trigger_at)
            raise Problem(
                422,
                f"no task could run at that time, {_past(trigger_at, now)}: {advice}",
                errors=[FieldError("/trigger_at", "is max_delay or more in the past")],
            )
        for old, new in result.moved:
            self._audit.rescheduled(by, old, new)
        return result

    async def acknowledge(self, until_ms: int, *, by: Author) -> None:
        """Acknowledge all failures that ended up to a time (milliseconds since 1970)."""
        await self._store.write(failures.acknowledge, until_ms)
        self._audit.acknowledged(by, until_ms)

    async def delete(self, target: Key | str, *, by: Author) -> Deleted:
        """Cancel and delete one task, or those of a name.

        :param by: the client.
        :raises Problem: when there is no such task, or when it is running.
        """
        if isinstance(target, Key):
            deleted = await self._store.write(tasks.delete, target)
        else:
            deleted = await self._store.write(tasks.delete_name, target)
        if deleted is None:
            raise await no_task(self._store, target, by.prefix)
        if isinstance(target, Key) and deleted.running:
            raise Problem(409, f"{target} is running: repeat the request when it has ended")
        self._audit.deleted(by, target, deleted.count)
        return deleted

    async def reschedule_all(self, bulk: Bulk, move: Move, *, by: Author) -> Rescheduled:
        """Move the tasks of an action; it continues if the client disconnects.

        :param by: the client.
        """
        return await shield(Deferred.fromCoroutine(self._reschedule_all(bulk, move, by)))

    async def _reschedule_all(self, bulk: Bulk, move: Move, by: Author) -> Rescheduled:
        selection = bulk.selection
        if not move.include_all_states:
            selection = evolve(selection, state=State.FAILED)
        keys, following = await self._keys(bulk, selection)
        moved: list[tuple[Key, Key]] = []
        skipped: list[tuple[Key, str]] = []
        minutes = move.minutes(len(keys))
        try:
            for part in _parts(len(keys)):
                step = actions.MoveStep(
                    selection=selection,
                    keys=keys[part],
                    minutes=minutes[part],
                    include_all_states=move.include_all_states,
                    start_from=bulk.start_from,
                    after=moved[-1][1] if moved else None,
                )
                result = await self._step(
                    bulk, actions.move_step, actions.preview_move, step, self._now()
                )
                moved += result.moved
                skipped += result.skipped
        finally:
            if not bulk.is_dry_run:
                self._log_moved(by, bulk, moved)
        return Rescheduled(moved=moved, skipped=skipped, next=following)

    def _log_moved(self, by: Author, bulk: Bulk, moved: Sequence[tuple[Key, Key]]) -> None:
        if not bulk.keys:
            self._audit.rescheduled_all(by, bulk.filters, len(moved))
            return
        for old, new in moved:
            self._audit.rescheduled(by, old, new)

    async def delete_all(self, bulk: Bulk, *, by: Author) -> Deleted:
        """Cancel and delete the tasks of an action, except running ones.

        The action continues if the client disconnects.

        :param by: the client.
        """
        return await shield(Deferred.fromCoroutine(self._delete_all(bulk, by)))

    async def _delete_all(self, bulk: Bulk, by: Author) -> Deleted:
        keys, following = await self._keys(bulk, bulk.selection)
        gone, running = list[Key](), list[Key]()
        try:
            for part in _parts(len(keys)):
                step = actions.Step(selection=bulk.selection, keys=keys[part])
                result = await self._step(bulk, actions.delete_step, actions.preview_delete, step)
                gone += result.keys
                running += result.running
        finally:
            if not bulk.is_dry_run:
                self._log_deleted(by, bulk, gone)
        return Deleted(count=len(gone), keys=gone, running=running, next=following)

    def _log_deleted(self, by: Author, bulk: Bulk, gone: Sequence[Key]) -> None:
        if not bulk.keys:
            self._audit.deleted_all(by, bulk.filters, len(gone))
            return
        for key in gone:
            self._audit.deleted(by, key, 1)

    async def _keys(self, bulk: Bulk, selection: Selection) -> tuple[Sequence[Key], Key | None]:
        """Return the keys of an action in order, and the first key after them."""
        if not bulk.keys:
            return await self._store.read(select_keys, selection, bulk.start_from, bulk.limit)
        keys = sorted(key for key in set(bulk.keys) if key >= (bulk.start_from or key))
        return keys[: bulk.limit], keys[bulk.limit] if len(keys) > bulk.limit else None

    def _step(
        self, bulk: Bulk, change: Callable[..., Any], preview: Callable[..., Any], *args: Any
    ) -> Deferred[Any]:
        """Run a step of an action in a transaction of its own, or preview the step."""
        if bulk.is_dry_run:
            return self._store.read(preview, *args)
        return self._step_lock.run(self._store.write, change, *args)


def _parts(number: int) -> Iterator[slice]:
    """Yield slices of a list of keys, one for each step."""
    for begin in range(0, number, actions.TASKS_PER_STEP):
        yield slice(begin, begin + actions.TASKS_PER_STEP)
