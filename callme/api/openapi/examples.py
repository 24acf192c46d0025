"""Examples of requests and responses: a task of the tour, from its ``PUT`` to its failure."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ...core.parameters import MAX_RETRY, parse_definition
from ...core.representation import task_summary, task_to_dict
from ...core.task import Attempt, Reason, State, new_task
from ...core.times import MINUTE, rfc3339, to_ms
from ...errors import FieldError, Invalid
from ...hosts.operations import MAX_SETTINGS
from ...hosts.settings import HostSettings
from ...server.channel import MAX_BODY, REQUEST_SECONDS
from ...server.problem import Problem

_HOUR = 60 * MINUTE
_AT = 1_858_809_600
_PUT_AT = _AT - 6 * _HOUR
TASK_OF_KEY = {"callback": "http://example.com/run-it"}
TASK_OF_NAME = {"trigger_at": "+6h", **TASK_OF_KEY}
"""The first task of the tour."""
NEW_TASK = {"task_name": "trial-end", **TASK_OF_NAME}
_DEFINITION = parse_definition(NEW_TASK, _PUT_AT)
_SCHEDULED = new_task(_DEFINITION, _PUT_AT)
_FAILURE = "the endpoint responded with 500, expected 200"
_ENDED = "all 2 attempts are used"
_FAILED = evolve(
    _SCHEDULED,
    state=State.FAILED,
    reason=Reason.UNEXPECTED_STATUS,
    detail=f"{_FAILURE}; {_ENDED}",
    due_at=None,
    attempts_used=2,
    finished_at_ms=to_ms(_AT + 61),
    attempts=tuple(
        Attempt(
            number=number,
            started_at_ms=1000 * (_AT + MINUTE * (number - 1)) + 3,
            lateness_ms=1000 * MINUTE * (number - 1) + 3,
            duration_ms=41,
            status=500,
            reason=Reason.UNEXPECTED_STATUS,
            detail=_FAILURE,
            body="no such user",
            node="callme",
        )
        for number in (1, 2)
    ),
    last_attempt=2,
)

KEY = str(_DEFINITION.key)
NEW_KEY = f"trial-end@{_AT + _HOUR}"
TASK = task_to_dict(_SCHEDULED)
FAILED_TASK = task_to_dict(_FAILED)
TASK_LIST = {"tasks": [task_summary(_SCHEDULED)], "next": NEW_KEY}
_RATE = {"calls_per_second": 320.0, "measured": False}
PREVIEW = {
    "dry_run": True,
    "status": 201,
    "would": "create",
    "task": TASK,
    "attempts_at": [rfc3339(1000 * at) for at in (_AT, _AT + MINUTE)],
    "expires_at": rfc3339(1000 * _DEFINITION.expires_at),
    "calls_in_minute": 1,
    "calls_to_host": 1,
    "lateness_ms": 0,
    "rate": _RATE,
    "host_rate": _RATE,
}
RESCHEDULED = {"rescheduled": [{"from": KEY, "to": NEW_KEY}], "skipped": []}
BATCH_RESULTS = [{"status": 201, "task": KEY}]
DELETED = {"deleted": 1, "skipped": [{"task": NEW_KEY, "reason": "running"}]}
_PAUSED = HostSettings(host="example.com:80", max_per_minute=600, paused_until=_AT)
HOST_SETTINGS = {"host": _PAUSED.host, **_PAUSED.to_dict(_PUT_AT)}
HOST_LIST = {
    "all_hosts": HostSettings(host="*").to_dict(_PUT_AT),
    "hosts": [
        {
            "host": _PAUSED.host,
            "scheduled": 1,
            "due": 0,
            "in_flight": 0,
            "last_success_at": rfc3339(1000 * _PUT_AT + 41),
            "last_failure_at": None,
            "failures_in_a_row": 0,
            **_PAUSED.to_dict(_PUT_AT),
        }
    ],
}
FORECAST = {
    "as_of": rfc3339(1000 * _PUT_AT + 3),
    "from": rfc3339(1000 * _PUT_AT),
    "until": rfc3339(1000 * (_PUT_AT + 24 * _HOUR)),
    "calls": 1,
    "rate": _RATE,
    "minutes": [{"minute": rfc3339(1000 * _AT), "calls": 1}],
    "overloaded": [],
    "complete": True,
}
HEALTH = {
    "status": "ok",
    "ticking": True,
    "writable": True,
    "last_tick": rfc3339(1000 * _PUT_AT + 1),
    "backlog": 0,
    "calls_in_flight": 0,
    "saturated_seconds": 0,
    "all_paused": False,
    "paused_hosts": 0,
}
FAILING_HEALTH = HEALTH | {"status": "failing", "writable": False, "backlog": None}
METRICS = """\
# HELP callme_tasks Number of tasks in each state.
# TYPE callme_tasks gauge
callme_tasks{state="scheduled"} 1.0
"""
CALENDAR = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\n...\r\nEND:VCALENDAR\r\n"
LINES = "".join(
    f'{{"task_name": "{name}", "trigger_at": "+6h", "callback": "http://example.com/run-it"}}\n'
    for name in ("first", "second")
)
"""A batch of two tasks, one a line."""
RESULT_LINES = "".join(f'{{"status":201,"task":"{name}@{_AT}"}}\n' for name in ("first", "second"))

_PROBLEMS: dict[str, tuple[str, str]] = {
    "BadRequest": ("colour", '"colour" is not a parameter here: expected pretty'),
    "Unauthorized": ("", "callme requires a token: Authorization: Bearer <token>"),
    "Forbidden": ("", "requests from web pages of other sites are not allowed"),
    "NotFound": ("", f"there is no task {KEY}"),
    "RequestTimeout": ("", f"the request took more than {REQUEST_SECONDS} s to arrive"),
    "Conflict": ("", f"{KEY} is running: repeat the request when it has ended"),
    "TooManyHosts": (
        "",
        f"{MAX_SETTINGS:,} hosts have settings already: DELETE those of another one",
    ),
    "PutConflict": (
        "",
        f"another definition exists under {KEY}: a PUT with If-Match: * replaces it",
    ),
    "PreconditionFailed": ("", f"{KEY} exists already"),
    "ContentTooLarge": ("", f"the body has more than {MAX_BODY:,} bytes"),
    "UnsupportedMediaType": ("", 'the Content-Type is "text/csv": expected application/json'),
    "Invalid": (
        "/retry",
        f'"many" is not accepted: expected an integer from 0 to {MAX_RETRY:,}',
    ),
    "TooManyRequests": ("", "too many bytes are being sent to callme at once"),
    "TooManyWaiters": (
        "",
        "too many clients wait for a task: try again later, or without wait",
    ),
    "HeadersTooLarge": ("", "there are more than 500 headers"),
    "Unavailable": ("", "the database is unavailable: try again in a moment"),
}
"""A pointer, which is empty for an error that is not in the input, and a detail, by response."""
_WITH_TASK = ("PutConflict", "PreconditionFailed")


def problem(name: str, status: int) -> dict[str, Any]:
    """Return the problem of an error response of the document.

    :param name: the name of the response.
    """
    pointer, detail = _PROBLEMS[name]
    errors = [FieldError(pointer, detail)] if pointer else []
    if status == 422:
        return Problem.of(Invalid(errors)).to_dict()
    existing = {"task": task_summary(_SCHEDULED)} if name in _WITH_TASK else {}
    return Problem(status, detail, errors=errors, extensions=existing).to_dict()
