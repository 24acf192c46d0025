"""Conversations with callme: requests and delays, made by generators that do no I/O.

A generator yields a request and receives its response, or the error of a failed connection; or it
yields a delay in seconds. The sync and the async client run the same generators.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import httpx

from .documents import FINAL_STATES, Task
from .errors import ConnectionFailed, WaitTimeout, failure
from .repeats import Repeats
from .requests import MAX_WAIT_SECONDS, Request, get

T = TypeVar("T")
Step = Request[Any] | float
Reply = httpx.Response | ConnectionFailed | None
Conversation = Generator[Step, Reply, T]


def exchange(request: Request[T], repeats: Repeats) -> Conversation[T]:
    """Make a request, repeat it where that is safe, and return its result.

    :raises ProblemError: if the last response is an error.
    :raises ConnectionFailed: if the last request has no response.
    """
    made = 0
    while True:
        reply = yield request
        assert reply is not None
        error: Exception | None
        if isinstance(reply, ConnectionFailed):
            error, status, retry_after = reply, None, None
        else:
            error = failure(f"{request.method} {request.path}", reply)
            if error is None:
                return request.read(reply)
            status, retry_after = reply.status_code, reply.headers.get("retry-after")
        delay = repeats.delay(
            made, status=status, is_repeatable=request.is_repeatable, retry_after=retry_after
        )
        if delay is None:
            raise error
        yield delay
        made += 1


def until_final(
    key: str, timeout: float | None, repeats: Repeats, clock: Callable[[], float]
) -> Conversation[Task]:
    """Return a task as soon as it has succeeded or failed.

    :param timeout: the seconds after which the wait ends; ``None`` waits indefinitely.
    :param clock: seconds that never go back.
    :raises WaitTimeout: if the task has not ended by then.
    """
    end = None if timeout is None else clock() + timeout
    while True:
        left = MAX_WAIT_SECONDS if end is None else end - clock()
        # Without a wait, the first request also reports a task that has ended already.
        wait = min(MAX_WAIT_SECONDS, max(0.0, left))
        task = yield from exchange(get(key, wait=wait), repeats)
        if task["state"] in FINAL_STATES:
            return task
        if end is not None and clock() >= end:
            raise WaitTimeout(f"{key}: it is {task['state']} after {timeout:g} s")


def connection_failed(request: Request[Any], cause: httpx.TransportError) -> ConnectionFailed:
    """Return the error that a request has no response."""
    # Some errors of httpx have no text.
    reason = str(cause) or type(cause).__name__
    server = cause.request.url.netloc.decode()
    error = ConnectionFailed(f"{request.method} {request.path} at {server}: {reason}")
    error.__cause__ = cause
    return error
