"""Exceptions of the client: each names the request, and carries the problem of the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


class CallmeError(Exception):
    """Any failure of a request to callme."""


class ConnectionFailed(CallmeError):
    """callme could not be reached, or the connection broke before its response was complete."""


class WaitTimeout(CallmeError):
    """A task did not reach a final state in time."""


class ProblemError(CallmeError):
    """A response that is an error, with the members of its problem document (RFC 9457).

    :ivar status: the HTTP status.
    :ivar title: the phrase of the status.
    :ivar detail: the reason in a sentence.
    :ivar errors: one object with ``pointer`` and ``detail`` for each invalid value.
    :ivar problem: the whole document; empty if the response had none.
    """

    def __init__(self, request: str, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.errors: list[dict[str, str]] = list(problem.get("errors", ()))
        super().__init__(f"{request}: {status} {self.title}: {self.detail}".rstrip(": "))


class Unauthorized(ProblemError):
    """The token is missing, unknown, or does not permit the request (401, 403)."""


class NotFound(ProblemError):
    """There is no such task (404)."""


class Conflict(ProblemError):
    """The request contradicts the state of a task (409, 412).

    :ivar task: the existing task, if the response has it.
    """

    @property
    def task(self) -> dict[str, Any] | None:
        """Return the existing task, or ``None`` if the response does not contain it."""
        return self.problem.get("task")


class InvalidRequest(ProblemError):
    """A value is invalid; ``errors`` names each (400, 413, 415, 422)."""


class Unavailable(ProblemError):
    """callme cannot handle the request at present (429, 5xx), even after repetitions."""


_CLASSES: dict[int, type[ProblemError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Unavailable,
}


def failure(request: str, response: httpx.Response) -> ProblemError | None:
    """Return the exception that a response is, or ``None`` for a success.

    :param request: the method and path, for the text.
    """
    if response.is_success:
        return None
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        # A proxy may respond with a page that is not a problem document.
        problem = {"detail": response.content[:200].decode("utf-8", "replace")}
    status = response.status_code
    default = Unavailable if status >= 500 else ProblemError
    return _CLASSES.get(status, default)(request, status, problem)
