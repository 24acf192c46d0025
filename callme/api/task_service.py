"""Commands on tasks for the API and the web UI, and the problems of refused ones."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from ..core.representation import task_summary
from ..core.task import Definition, Reason
from ..core.text.durations import rough_duration
from ..core.times import Key, rfc3339
from ..core.transitions import PutCondition, PutOutcome
from ..errors import FieldError
from ..reports import failures
from ..reports.audit_log import AuditLog
from ..server.auth import Author
from ..server.problem import Problem
from ..store import tasks
from ..store.database import Store
from ..store.interface import Deleted, PutResult, Rescheduled

_REFUSALS = {
    PutOutcome.MISSING: (412, "there is no task {key} to replace"),
    PutOutcome.EXISTS: (412, "{key} exists already"),
    PutOutcome.CONFLICT: (
        409,
        "another definition exists under {key}: a PUT with If-Match: * replaces it",
    ),
    PutOutcome.NOT_SCHEDULED: (409, "another definition exists under {key}, which is {state}"),
    PutOutcome.NEVER_RUNS: (422, "the task could never run"),
}


def put_problem(definition: Definition, result: PutResult, now: float) -> Problem | None:
    """Return the problem of a put that was refused; ``None`` for any other."""
    refusal = _REFUSALS.get(result.outcome)
    if refusal is None:
        return None
    status, text = refusal
    if result.outcome is PutOutcome.NEVER_RUNS:
        last = rfc3339(definition.expires_at * 1000)
        past = f"trigger_at is {rough_duration(now - definition.trigger_at)} in the past"
        detail = f"max_delay has passed: {past}, and the call had to start before {last}"
        return Problem(status, f"{text}: {past}", errors=[FieldError("/trigger_at", detail)])
    task = result.task
    state = "" if task is None else task.state.value
    return Problem(
        status,
        text.format(key=definition.key, state=state),
        extensions={} if task is None else {"task": task_summary(task)},
    )


@define(eq=False, kw_only=True)
class TaskService:
    """Commands on tasks; one that cannot be done raises :exc:`Problem`.

    :param now: the wall clock: seconds since 1970.
    :param audit: logs the changes.
    """

    _store: Store
    _now: Callable[[], float]
    _audit: AuditLog

    async def put(
        self, definition: Definition, condition: PutCondition, now: float, *, by: Author
    ) -> PutResult:
        """Create or replace a task, or keep an equal one.

        :param now: the time of the request, seconds since 1970.
        :param by: the client that asks for it.
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

        :param by: the client that asks for it.
        :raises Problem: when there is no such task, or when none of them can be moved.
        """
        now = self._now()
        if isinstance(target, Key):
            moving = self._store.write(
                tasks.reschedule, target, trigger_at, now, include_all_states=include_all_states
            )
        else:
            moving = self._store.write(
                tasks.reschedule_name,
                target,
                trigger_at,
                now,
                include_all_states=include_all_states,
            )
        result = await moving
        if result is None:
            raise Problem(404, f"there is no task {target}")
        if result.conflict is not None:
            raise Problem(409, result.conflict)
        if not result.moved and any(
            reason == Reason.TOO_LATE.value for _, reason in result.skipped
        ):
            raise Problem(
                422,
                "no task could run at that time",
                errors=[FieldError("/trigger_at", "is max_delay or more in the past")],
            )
        for old, new in result.moved:
            self._audit.rescheduled(by, old, new)
        return result

    async def acknowledge(self, until_ms: int, *, by: Author) -> None:
        """Acknowledge all failures up to an end, in ms since 1970."""
        await self._store.write(failures.acknowledge, until_ms)
        self._audit.acknowledged(by, until_ms)

    async def delete(self, target: Key | str, *, by: Author) -> Deleted:
        """Cancel and delete one task, or those of a name.

        :param by: the client that asks for it.
        :raises Problem: when there is no such task, or when it is running.
        """
        if isinstance(target, Key):
            deleted = await self._store.write(tasks.delete, target)
        else:
            deleted = await self._store.write(tasks.delete_name, target)
        if deleted is None:
            raise Problem(404, f"there is no task {target}")
        if isinstance(target, Key) and deleted.running:
            raise Problem(409, f"{target} is running: it cannot be deleted now")
        self._audit.deleted(by, target, deleted.count)
        return deleted
