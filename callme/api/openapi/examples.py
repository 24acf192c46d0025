"""Examples of requests and responses: the task of the tour, from its ``PUT`` to its failure."""

from __future__ import annotations

from attrs import evolve

from ...core.parameters import parse_definition
from ...core.representation import task_summary, task_to_dict
from ...core.task import Attempt, Reason, State, new_task
from ...core.times import MINUTE, rfc3339, to_ms
from ...hosts.settings import HostSettings

_HOUR = 60 * MINUTE
_AT = 1_858_809_600
_PUT_AT = _AT - 6 * _HOUR
TASK_OF_KEY = {"callback": "http://example.com/run-it"}
TASK_OF_NAME = {"trigger_at": "+6h", **TASK_OF_KEY}
"""The first task of the tour."""
NEW_TASK = {"task_name": "trial-end", **TASK_OF_NAME}
DEFINITION = parse_definition(NEW_TASK, _PUT_AT)
SCHEDULED = new_task(DEFINITION, _PUT_AT)
_FAILURE = "the endpoint responded with 500, expected 200"
_ENDED = "all 2 attempts are used"
_FAILED = evolve(
    SCHEDULED,
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

KEY = str(DEFINITION.key)
NEW_KEY = f"trial-end@{_AT + _HOUR}"
TASK = task_to_dict(SCHEDULED)
FAILED_TASK = task_to_dict(_FAILED)
TASK_LIST = {"tasks": [task_summary(SCHEDULED)], "next": NEW_KEY}
_RATE = {"calls_per_second": 320.0, "measured": False}
PREVIEW = {
    "dry_run": True,
    "status": 201,
    "would": "create",
    "task": TASK,
    "attempts_at": [rfc3339(1000 * at) for at in (_AT, _AT + MINUTE)],
    "expires_at": rfc3339(1000 * DEFINITION.expires_at),
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
"""A batch of two tasks, one per line."""
RESULT_LINES = "".join(f'{{"status":201,"task":"{name}@{_AT}"}}\n' for name in ("first", "second"))
