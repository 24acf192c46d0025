"""What a put comes to: an answer, or why there is no task now as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred

from ..core.callback import host_of
from ..core.errors import FieldError
from ..core.status import item
from ..core.task import Definition, State, Task
from ..core.trigger import rfc3339
from ..problem import Problem
from ..store.port import Put, PutResult

T = TypeVar("T")


def refusal(
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
    return Problem(status, detail, more={"task": item(task)})


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


def whoever_waits(writing: Deferred[T]) -> Deferred[T]:
    """Wait for a write, which goes on, and has its consequences, if nobody waits any more.

    Klein cancels a handler, and what it waits for, when its client hangs up.
    """
    waiting: Deferred[T] = Deferred()
    writing.addCallbacks(waiting.callback, waiting.errback)
    return waiting
