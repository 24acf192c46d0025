"""JSON representation of tasks: the members of responses and of notifications."""

from __future__ import annotations

from json.encoder import encode_basestring as _encode_text
from operator import attrgetter
from typing import Any

from .parameters import PARAMETERS
from .task import Attempt, Task
from .text.compact_json import encode_compact
from .times import rfc3339

_values = attrgetter(*(parameter.name for parameter in PARAMETERS))
_NAMES = tuple(parameter.name for parameter in PARAMETERS)
_TO_JSON = tuple((p.name, p.to_json) for p in PARAMETERS if p.to_json is not None)
_REDACT = tuple((p.name, p.redact) for p in PARAMETERS if p.redact is not None)
_UNLISTED = tuple(parameter.name for parameter in PARAMETERS if not parameter.is_listed)


def task_to_dict(task: Task) -> dict[str, Any]:
    """Return a task with its payload and attempts, and with the values of secret headers masked.

    ``attempts_dropped`` and ``next`` are absent if there are no further attempts.
    """
    return _mark_damaged({**_task(task), **_attempts(task)}, task)


def task_summary(task: Task) -> dict[str, Any]:
    """Return a task without payload, attempts and header values, for lists and errors."""
    members = _task(task)
    for name in _UNLISTED:
        members.pop(name, None)
    for name, redact in _REDACT:
        members[name] = redact(getattr(task.definition, name))
    return _mark_damaged(members, task)


def _mark_damaged(members: dict[str, Any], task: Task) -> dict[str, Any]:
    """Replace the substitutes of unreadable values with null, and name those members."""
    if task.damaged:
        damaged = {_DERIVED.get(name, name) for name in task.damaged}
        # The readable attempts stay; only the unreadable ones are missing.
        members |= dict.fromkeys(damaged & members.keys() - {"attempts"})
        # attempts_left depends on the state and the retries.
        if damaged & {"state", "retry", "attempts_used"}:
            members["attempts_left"] = None
        members["damaged"] = sorted(damaged)
    return members


_DERIVED = {
    "due_at": "next_attempt_at",
    "created_at_ms": "created_at",
    "finished_at_ms": "finished_at",
}
"""Names of JSON members by the columns that they come from, where the two differ."""


def _task(task: Task) -> dict[str, Any]:
    members: dict[str, Any] = {"task": str(task.key)}
    members.update(zip(_NAMES, _values(task.definition), strict=True))
    # The payload is in the response once, in the form in which the client sent it.
    del members["payload" if members["payload_base64"] else "payload_base64"]
    for name, to_json in _TO_JSON:
        members[name] = to_json(members[name])
    members["state"] = task.state.value
    members["reason"] = None if task.reason is None else task.reason.value
    members["detail"] = task.detail
    members["attempts_used"] = task.attempts_used
    members["attempts_left"] = task.attempts_left
    members["next_attempt_at"] = _time(None if task.due_at is None else task.due_at * 1000)
    members["created_at"] = _time(task.created_at_ms)
    members["finished_at"] = _time(task.finished_at_ms)
    return members


def _attempts(task: Task) -> dict[str, Any]:
    members: dict[str, Any] = {"attempts": [_attempt(attempt) for attempt in task.attempts or ()]}
    if task.first_attempt > 1:
        members["attempts_dropped"] = task.first_attempt - 1
    if (earlier := task.earlier_attempts) is not None:
        members["next"] = str(earlier)
    return members


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started_at": _time(attempt.started_at_ms),
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


def encode_task(task: Task) -> str:
    """Return the result of :func:`task_to_dict` as compact JSON, in a third of the time.

    Most members of most tasks have their default, whose encoding is cached.
    """
    if task.damaged:
        return encode_compact(task_to_dict(task))
    definition = task.definition
    members = [
        encoded
        if value == default
        else name + encode_compact(value if to_json is None else to_json(value))
        for value, (name, to_json, default, encoded) in zip(
            _values(definition), _ENCODED, strict=True
        )
    ]
    del members[_PAYLOAD if definition.payload_base64 else _PAYLOAD_BASE64]
    has_attempts = task.attempts or task.first_attempt > 1
    attempts = encode_compact(_attempts(task))[1:] if has_attempts else '"attempts":[]}'
    next_at = None if task.due_at is None else task.due_at * 1000
    return (
        f'{{"task":{_encode_text(str(task.key))},{",".join(members)},"state":"{task.state.value}",'
        f'"reason":{_token(None if task.reason is None else task.reason.value)},'
        f'"detail":{_encode_text(task.detail)},"attempts_used":{task.attempts_used},'
        f'"attempts_left":{task.attempts_left},"next_attempt_at":{_token(_time(next_at))},'
        f'"created_at":{_token(_time(task.created_at_ms))},'
        f'"finished_at":{_token(_time(task.finished_at_ms))},{attempts}'
    )


def _token(text: str | None) -> str:
    """Return the JSON of ``None`` or of a text that needs no escapes."""
    return "null" if text is None else f'"{text}"'


_PAYLOAD, _PAYLOAD_BASE64 = _NAMES.index("payload"), _NAMES.index("payload_base64")
_NO_DEFAULT = object()
_ENCODED = tuple(
    (f'"{p.name}":', p.to_json, _NO_DEFAULT, "")
    if p.is_required
    else (f'"{p.name}":', p.to_json, p.default_value, f'"{p.name}":{encode_compact(p.default)}')
    for p in PARAMETERS
)
"""For each parameter: its name, its conversion, its default, and the default's encoded member."""
