"""Exceptions of request handlers as problem responses, for the API and the web UI."""

from __future__ import annotations

import re
from urllib.parse import quote

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ..core.text.nearest import Nearest
from ..core.times import Key
from ..errors import Invalid, quoted
from ..server.paths import API_SEGMENTS
from ..server.problem import RETRY_LATER, Problem, set_head
from ..server.refusals import Refusal
from ..store.database import Store
from ..store.interface import StartGone, StoreUnavailable
from ..store.listing.nearby import nearest_task
from .long_poll import TooManyWaiters

_DEEP = {"task": "", "status": "", "reschedule": "<task_name>", "hosts": ""}
"""Endpoints whose path may have a second segment, each with the segment if it is required."""
_NEAREST = Nearest(API_SEGMENTS)
_ALIASES = {
    **dict.fromkeys(("job", "jobs", "schedule", "schedules", "callback", "callbacks"), "task"),
    **dict.fromkeys(("cancel", "delete", "remove"), "DELETE task"),
    **dict.fromkeys(("retry", "requeue", "replay", "move", "run"), "POST reschedule"),
    **dict.fromkeys(("pause", "resume"), "PUT hosts"),
    **dict.fromkeys(("ping", "live", "livez", "ready", "readyz", "up"), "healthz"),
    **dict.fromkeys(("docs", "redoc", "swagger", "swagger.json", "api-docs"), "openapi.json"),
}
"""First segments of paths in other programs, each with callme's endpoint and method."""
_METHODS = {
    b"task": "; PUT creates or replaces a task, POST /reschedule/<task> moves it, "
    "DELETE cancels it",
    b"status": "; PUT and DELETE /task/<task> change a task, POST /reschedule/<task> moves it",
    b"batch": "; POST creates many tasks, GET /status lists them",
    b"reschedule": "; POST moves tasks, PUT and DELETE /task/<task> change one",
    b"hosts": "; GET /hosts lists them, PUT and DELETE /hosts/<host:port> change one, "
    'and {"paused": true} pauses it',
    b"forecast": "; PUT /task/<task>?dry_run previews a task",
}
"""Uses of the methods by the first segment of a path."""
_PREFIX = re.compile(r"/(?:api/)?(?:v[0-9]+/)?")
log = Logger(namespace="callme")


def problem_for(request: IRequest, failure: Failure) -> Problem:
    """Return the problem response for a failed handler; log failures that concern the operator."""
    match failure.value:
        case Problem() as problem:
            return problem
        case Invalid() as invalid:
            return Problem.of(invalid)
        case StoreUnavailable() as error:
            log.error("request failed: {error}", error=quoted(str(error), 300))
            detail = "the database is unavailable: try again in a moment"
            return Problem(503, detail, headers=RETRY_LATER)
        case StartGone() as error:
            detail = f"the damaged task {error} is gone: begin again, without start_from"
            return Problem(404, detail)
        case TooManyWaiters():
            detail = "too many clients wait for a task: try again later, or without wait"
            return Problem(429, detail, headers=RETRY_LATER, refusal=Refusal.OVERLOAD)
        case MethodNotAllowed() as error:
            method = quoted(request.method.decode("latin-1"))
            methods = {*(error.valid_methods or ()), "OPTIONS"}
            use = "PUT" if "PUT" in methods and request.method == b"POST" else ""
            allowed = ", ".join(sorted(methods))
            detail = f"the method {method} is not allowed here: use {use or allowed}"
            detail += _METHODS.get(_first_segment(request.path), "")
            return Problem(405, detail, headers={"Allow": allowed})
        case HTTPException():
            # The router's other exceptions, such as redirects, also mean that the path is unknown.
            return Problem(404, f"there is nothing at this path: {_way_out(request.path)}")
    log.failure("request failed", failure)
    return Problem(500, "callme failed to respond; see its log")


def is_options(request: IRequest, problem: Problem) -> bool:
    """Return whether a request is OPTIONS, and set the head of its response.

    No route supports the method. It therefore fails as an unsupported method, with the methods that
    the path allows (RFC 9110, section 9.3.7).
    """
    if request.method != b"OPTIONS" or problem.status != 405:
        return False
    set_head(request, 204, problem.headers)
    return True


def _first_segment(path: bytes) -> bytes:
    return path[1:].partition(b"/")[0]


async def no_task(store: Store, target: Key | str, prefix: str) -> Problem:
    """Return the problem for an unknown key or name, which suggests the nearest task.

    :param prefix: the beginning of the names that the client has access to.
    """
    nearest = await store.read(nearest_task, target, prefix)
    named = str(target) if isinstance(target, Key) else f"named {quoted(target)}"
    if isinstance(nearest, Key):
        path = f"/status/{quote(nearest.task_name, safe='')}"
        advice = f"the nearest is {nearest}, and GET {path} lists all tasks of this name"
    elif nearest is not None:
        advice = f"did you mean {quoted(nearest)}?"
    else:
        advice = "GET /status lists the tasks"
    return Problem(404, f"there is no task {named}: {advice}")


def _way_out(path: bytes) -> str:
    """Return advice for an unknown path."""
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
