"""How an answer is written: a task, a page of tasks, a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from twisted.web.iweb import IRequest

from ..core.headers import masked, names_of
from ..core.task import Attempt, Task
from ..core.trigger import Key, rfc3339
from ..problem import JSON_TYPE, NDJSON_TYPE, PROBLEM_TYPE, Problem, encode
from ..store.port import Page
from .decoding import is_ndjson

JSON = dict[str, Any]


def whole(task: Task) -> JSON:
    """Return everything there is to say of one task."""
    answer = _members(task, masked(task.definition.headers))
    answer["attempts"] = [_attempt(attempt) for attempt in task.attempts or ()]
    return answer


def item(task: Task) -> JSON:
    """Return a task as it stands in lists and errors.

    That is without payload and attempts, and without the values of any headers.
    """
    answer = _members(task, names_of(task.definition.headers))
    del answer["payload"]
    return answer


def _members(task: Task, headers: dict[str, str]) -> JSON:
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
        "state": task.state.value,
        "reason": None if task.reason is None else task.reason.value,
        "detail": task.detail,
        "attempts_used": task.attempts_used,
        "attempts_left": task.attempts_left,
        "next_attempt_at": _time(None if task.due_at is None else task.due_at * 1000),
        "created_at": _time(task.created_at),
        "finished_at": _time(task.finished_at),
    }


def _one_or_all(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _attempt(attempt: Attempt) -> JSON:
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


def answer(
    request: IRequest, members: object, status: int = 200, headers: dict[str, str] | None = None
) -> bytes:
    """Set what an answer needs, and return its body."""
    return _write(request, JSON_TYPE, status, headers or {}, members)


def answer_encoded(request: IRequest, encoded: Callable[[bool], bytes]) -> bytes:
    """Answer with JSON that is there already, indented or not."""
    return _send(request, JSON_TYPE, 200, {}, encoded(_wants_pretty(request)))


def answer_text(request: IRequest, kind: bytes, text: bytes) -> bytes:
    """Answer with what is no JSON.

    :param kind: its content type.
    """
    return _send(request, kind, 200, {}, text)


def refuse(request: IRequest, problem: Problem) -> bytes:
    """Set what the answer to a bad request needs, and return its body."""
    return _write(request, PROBLEM_TYPE, problem.status, problem.headers, problem.members)


def _write(
    request: IRequest, kind: bytes, status: int, headers: dict[str, str], members: object
) -> bytes:
    return _send(request, kind, status, headers, encode(members, _wants_pretty(request)))


def _send(
    request: IRequest, kind: bytes, status: int, headers: dict[str, str], body: bytes
) -> bytes:
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader(b"content-type", kind)
    request.setHeader(b"content-length", str(len(body)).encode("ascii"))
    for name, value in headers.items():
        request.setHeader(name.encode("ascii"), value.encode("ascii"))
    return body


def _wants_pretty(request: IRequest) -> bool:
    """Whether to indent; for errors too, so it must take any query string."""
    parts = request.uri.partition(b"?")[2].split(b"&")
    return any(part in (b"pretty", b"pretty=", b"pretty=true") for part in parts)


def url_of(prefix: str, key: Key) -> str:
    """Return the path of a task, percent-encoded."""
    return f"{prefix}{quote(key.task_name, safe='')}@{key.trigger_at}"


def page_answer(request: IRequest, page: Page, name: str | None, query: dict[str, str]) -> bytes:
    """Answer with a page of tasks, and say where the next one begins."""
    members: dict[str, Any] = {"tasks": [item(task) for task in page.tasks]}
    headers = {}
    if page.next is not None:
        members["next"] = str(page.next)
        following = urlencode(query | {"start_from": members["next"]}, quote_via=quote, safe="@")
        path = f"/status/{quote(name or '', safe='')}"
        headers["Link"] = f'<{path}?{following}>; rel="next"'
    return answer(request, members, headers=headers)


def encode_answers(request: IRequest, answers: list[JSON]) -> bytes:
    """Write some of a batch's answers: items of a JSON array, or an object a line."""
    if is_ndjson(request):
        return b"".join(encode(one) for one in answers)
    if _wants_pretty(request):
        return b",\n  ".join(encode(one).rstrip() for one in answers)
    return encode(answers).strip()[1:-1]


def answer_many(request: IRequest, parts: Sequence[bytes]) -> bytes:
    """Answer a batch with what :func:`encode_answers` wrote."""
    if is_ndjson(request):
        return _send(request, NDJSON_TYPE, 200, {}, b"".join(parts))
    if _wants_pretty(request):
        return _send(request, JSON_TYPE, 200, {}, b"[\n  " + b",\n  ".join(parts) + b"\n]\n")
    return _send(request, JSON_TYPE, 200, {}, b"[" + b",".join(parts) + b"]\n")


def skipped_items(skipped: Iterable[tuple[Key, str]]) -> list[dict[str, str]]:
    """Return what was left alone, and why."""
    return [{"task": str(key), "reason": why} for key, why in skipped]
