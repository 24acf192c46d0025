"""Exceptions of request handlers as problem responses, for the API and the web UI."""

from __future__ import annotations

import re

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ..core.text.nearest import Nearest
from ..errors import Invalid, quoted
from ..server.paths import API_SEGMENTS
from ..server.problem import RETRY_LATER, Problem, set_head
from ..server.refusals import Refusal
from ..store.interface import StoreUnavailable
from .long_poll import TooManyWaiters

_DEEP = {"task": "", "status": "", "reschedule": "<task_name>", "hosts": ""}
"""Endpoints whose path may have a second segment, and the one where that is required."""
_NEAREST = Nearest(API_SEGMENTS)
_ALIASES = {
    **dict.fromkeys(("job", "jobs", "schedule", "schedules", "callback", "callbacks"), "task"),
    **dict.fromkeys(("cancel", "delete", "remove"), "DELETE task"),
    **dict.fromkeys(("retry", "requeue", "replay", "move"), "POST reschedule"),
    **dict.fromkeys(("pause", "resume"), "PUT hosts"),
    **dict.fromkeys(("ping", "live", "livez", "ready", "readyz", "up"), "healthz"),
    **dict.fromkeys(("docs", "redoc", "swagger", "swagger.json", "api-docs"), "openapi.json"),
}
"""First segments of the paths of other programs, each with an endpoint and perhaps a method."""
_PREFIX = re.compile(r"/(?:api/)?(?:v[0-9]+/)?")
log = Logger(namespace="callme")


def problem_for(request: IRequest, failure: Failure) -> Problem:
    """Return the problem to respond with when a handler failed; log what the operator must know."""
    match failure.value:
        case Problem() as problem:
            return problem
        case Invalid() as invalid:
            return Problem.of(invalid)
        case StoreUnavailable() as error:
            log.error("request failed: {error}", error=quoted(str(error), 300))
            detail = "the database is unavailable: try again in a moment"
            return Problem(503, detail, headers=RETRY_LATER)
        case TooManyWaiters():
            detail = "too many clients wait for a task: try again later, or without wait"
            return Problem(429, detail, headers=RETRY_LATER, refusal=Refusal.OVERLOAD)
        case MethodNotAllowed() as error:
            method = quoted(request.method.decode("latin-1"))
            methods = {*(error.valid_methods or ()), "OPTIONS"}
            use = "PUT" if "PUT" in methods and request.method == b"POST" else ""
            allowed = ", ".join(sorted(methods))
            detail = f"the method {method} is not allowed here: use {use or allowed}"
            return Problem(405, detail, headers={"Allow": allowed})
        case HTTPException():
            # Any other exception of the router, such as a redirect, means that the path is unknown.
            return Problem(404, f"there is nothing at this path: {_way_out(request.path)}")
    log.failure("request failed", failure)
    return Problem(500, "callme failed to respond; see its log")


def is_options(request: IRequest, problem: Problem) -> bool:
    """Set the head of the response to OPTIONS, and return true, if that is what failed.

    No route has the method. So it fails as an unsupported one, which says what the path allows
    (RFC 9110, section 9.3.7).
    """
    if request.method != b"OPTIONS" or problem.status != 405:
        return False
    set_head(request, 204, problem.headers)
    return True


def _way_out(path: bytes) -> str:
    """Return the advice for a path that does not exist."""
    text = path.decode("latin-1")
    begin = _PREFIX.match(text)
    first, _, rest = text[begin.end() if begin else 1 :].partition("/")
    nearest = _ALIASES.get(first) or _NEAREST.find(first)
    if nearest is None:
        return "GET /openapi.json describes the API"
    method, _, endpoint = nearest.rpartition(" ")
    path_of = f"{method} /{endpoint}".strip()
    if endpoint not in _DEEP:
        return f"did you mean {path_of}?"
    second = quoted(rest.rstrip("/"))[1:-1] or _DEEP[endpoint]
    return f"did you mean {path_of}{'/' if second else ''}{second}?"
