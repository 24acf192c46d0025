"""A task as it is shown: what answers say of it, and notices of its end."""

from __future__ import annotations

from typing import Any

from .headers import masked, names_of
from .task import Attempt, Task
from .times import rfc3339


def task_to_dict(task: Task) -> dict[str, Any]:
    """Return everything there is to say of one task."""
    answer = _members(task, masked(task.definition.headers))
    answer["attempts"] = [_attempt(attempt) for attempt in task.attempts or ()]
    return answer


def task_summary(task: Task) -> dict[str, Any]:
    """Return a task as it stands in lists and errors.

    That is without payload and attempts, and without the values of any headers.
    """
    answer = _members(task, names_of(task.definition.headers))
    del answer["payload"]
    return answer


def _members(task: Task, headers: dict[str, str]) -> dict[str, Any]:
    definition = task.definition
    return {
        "task": str(definition.key),
        "task_name": definition.task_name,
        "trigger_at": str(definition.trigger_at),
        "callback": definition.callback,
        "callback_method": definition.callback_method,
        "payload": definition.payload,
        "headers": headers,
        "expected_http_status": _one_or_all(definition.expected_http_status),
        "retry": definition.retry,
        "retry_delay": _one_or_all(definition.retry_delay),
        "max_delay": definition.max_delay,
        "timeout": definition.timeout,
        "on_failure": definition.on_failure,
        "on_success": definition.on_success,
        "state": task.state.value,
        "reason": None if task.reason is None else task.reason.value,
        "detail": task.detail,
        "attempts_used": task.attempts_used,
        "attempts_left": task.attempts_left,
        "next_attempt_at": _time(None if task.due_at is None else task.due_at * 1000),
        "created_at": _time(task.created_at_ms),
        "finished_at": _time(task.finished_at_ms),
    }


def _one_or_all(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started_at": _time(attempt.started_at),
        "lateness_ms": attempt.lateness_ms,
        "duration_ms": attempt.duration_ms,
        "status": attempt.status,
        "reason": None if attempt.reason is None else attempt.reason.value,
        "detail": attempt.detail,
        "body": attempt.body,
        "node": attempt.node,
    }


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(milliseconds)
