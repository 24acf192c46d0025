"""Moving and deleting tasks, whoever asks for it: a client of the API, or a person on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define

from ..core.callback_url import host_of
from ..core.representation import task_summary
from ..core.task import Definition, Reason, State, Task
from ..core.times import Key, rfc3339
from ..errors import FieldError
from ..server.problem import Problem
from ..store.database import shield
from ..store.interface import Deleted, Put, PutResult, Rescheduled, Store
from ..worker.scheduler import Scheduler


def put_problem(
    definition: Definition,
    result: PutResult,
    *,
    must_exist: bool = False,
    must_not_exist: bool = False,
) -> Problem | None:
    """Return why a put did not do what was asked; ``None`` where it did.

    :param must_exist: whether it was to replace a task (``If-Match: *``).
    :param must_not_exist: whether it was to create one (``If-None-Match: *``).
    """
    task = result.task
    if result.put is Put.ABSENT:
        if must_exist:
            return Problem(412, f"there is no task {definition.key} to replace")
        last = rfc3339(definition.expires_at * 1000)
        detail = f"max_delay has passed: the call had to start before {last}"
        return Problem(422, "the task could never run", [FieldError("/trigger_at", detail)])
    if task is None:
        return None
    if must_not_exist and result.put is not Put.CREATED:
        return _standing(412, f"{definition.key} exists already", task)
    if result.put is Put.DIFFERENT:
        advice = (
            ": If-Match: * replaces it"
            if task.state is State.SCHEDULED
            else f", which is {task.state.value}"
        )
        detail = f"another definition stands under {task.key}{advice}"
        return _standing(409, detail, task)
    return None


def _standing(status: int, detail: str, task: Task) -> Problem:
    return Problem(status, detail, extensions={"task": task_summary(task)})


def wake_for(
    done: Iterable[tuple[Definition, PutResult]],
    now: float,
    wake: Callable[[Iterable[str]], None],
) -> None:
    """Have those tasks called at once whose minute has begun."""
    hosts = [
        host_of(definition.callback)
        for definition, result in done
        if definition.trigger_at <= now and result.put in (Put.CREATED, Put.REPLACED)
    ]
    if hosts:
        wake(hosts)


@define(eq=False)
class TaskService:
    """What can be done to tasks that are there; what cannot be done raises :exc:`Problem`.

    :param now: the wall clock: seconds since 1970.
    """

    _store: Store
    _scheduler: Scheduler
    _now: Callable[[], float]

    async def reschedule(
        self, target: Key | str, trigger_at: int, *, include_all_states: bool
    ) -> Rescheduled:
        """Move one task, or those of a name, to another minute; what is due then is called."""
        now = self._now()
        if isinstance(target, Key):
            moving = self._store.reschedule(
                target, trigger_at, now, include_all_states=include_all_states
            )
        else:
            moving = self._store.reschedule_name(
                target, trigger_at, now, include_all_states=include_all_states
            )
        result = await shield(moving.addCallback(self._wake))
        if result is None:
            raise Problem(404, f"there is no task {target}")
        if result.conflict is not None:
            raise Problem(409, result.conflict)
        if not result.moved and any(why == Reason.TOO_LATE.value for _, why in result.skipped):
            raise Problem(
                422,
                "no task could run at that time",
                [FieldError("/trigger_at", "is max_delay or more in the past")],
            )
        return result

    async def delete(self, target: Key | str) -> Deleted:
        """Forget one task, or those of a name."""
        if isinstance(target, Key):
            deleting = self._store.delete(target)
        else:
            deleting = self._store.delete_name(target)
        deleted = await shield(deleting)
        if deleted is None:
            raise Problem(404, f"there is no task {target}")
        if isinstance(target, Key) and deleted.running:
            raise Problem(409, f"{target} is running: it cannot be deleted now")
        return deleted

    def _wake(self, result: Rescheduled | None) -> Rescheduled | None:
        if result is not None and result.moved:
            trigger_at = result.moved[0][1].trigger_at
            if trigger_at <= self._now():
                self._scheduler.wake(result.hosts)
        return result
