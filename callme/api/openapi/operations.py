"""Operations of the API: paths, methods, parameters, and all response statuses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from ... import __version__
from ...core.json_schema import Schema, one_of, ref, string
from ...core.task import ATTEMPTS_PER_PAGE, MAX_ATTEMPTS
from ...server.channel import MAX_BATCH
from ...server.problem import encode
from ..batch import MAX_TASKS
from ..ical import AHEAD_DAYS, BACK_DAYS, MAX_EVENTS
from ..requests import FILTERS, HOST_PATTERN, PAGING
from . import examples, schemas
from .builders import (
    CALENDAR,
    NDJSON,
    OPENMETRICS,
    TEXT,
    content,
    header,
    path_parameter,
    response,
)
from .components import PARAMETERS, error_responses, parameter_refs, responses

DESCRIPTION = """A daemon that calls you back. Register a **task** (a name, a minute, an HTTP \
endpoint): at that minute callme calls the endpoint, checks the response, retries if necessary, \
and records every attempt.

callme ignores a slash at the end of a path. A path that allows `GET` allows `HEAD`. callme \
responds to `OPTIONS` with `204` and `Allow`, and to other methods with `405` and `Allow`. Every \
response has `Cache-Control: no-store` (a calendar has `private, no-cache`) and an \
`X-Request-Id`: that of the request, or one that callme generates. Every error is \
`application/problem+json` (RFC 9457). Unknown parameters are refused."""


LINKS = {
    "tasks": "/status",
    "batch": "/batch",
    "forecast": "/forecast",
    "hosts": "/hosts",
    "health": "/healthz",
    "metrics": "/metrics",
    "openapi": "/openapi.json",
}
"""Entry points of the API."""


def service_document(base_path: str = "") -> dict[str, Any]:
    """Return the response to ``GET /``.

    :param base_path: the path in front of all paths; empty for ``/``.
    """
    links = {name: base_path + path for name, path in LINKS.items()}
    return {"name": "callme", "version": __version__, "links": links}


def document(base_path: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document.

    :param base_path: the path in front of all paths; empty for ``/``.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "callme",
            "version": __version__,
            "contact": {"name": "The operator of this daemon"},
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": base_path or "/", "description": "The daemon that serves this document."}
        ],
        # A daemon on the loopback interface may require no token.
        "security": [{"bearer": []}, {}],
        "tags": [
            {"name": "tasks", "description": "Callbacks, each for one minute."},
            {"name": "daemon", "description": "The daemon itself."},
        ],
        "paths": paths(),
        "components": {
            "schemas": schemas.request_schemas() | schemas.response_schemas(),
            "parameters": PARAMETERS,
            "responses": responses(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the daemon's `--token-file`, if it has one.",
                }
            },
        },
    }


@cache
def served(base_path: str, pretty: bool) -> bytes:
    """Return the document as JSON, which is cached.

    :param base_path: the path in front of all paths; empty for ``/``.
    """
    return encode(document(base_path), pretty)


Operation = dict[str, Any]

_NAME = path_parameter("task_name", ref("TaskName"))
_HOST = path_parameter(
    "host",
    string(
        "`host:port`, or `*` for all hosts.",
        pattern=rf"^(?:\*|{HOST_PATTERN})$",
        examples=["example.com:80", "*"],
        maxLength=300,
    ),
)
_ABSOLUTE_TIME = path_parameter("trigger_at", ref("AbsoluteTime"))
_TIME = path_parameter("trigger_at", ref("Time"))


def paths() -> dict[str, Any]:
    """Return the operations, by path and method."""
    return {
        "/": {"get": _service()},
        "/task": {
            "get": _list("getTasks", "List all tasks."),
            "put": _put("putTask", "name and minute in the body", examples.NEW_TASK),
            "delete": _delete_all(),
        },
        "/task/{task_name}": {
            "get": _list("getTasksOfName", "List the tasks of a name.", _NAME),
            "put": _put("putTaskOfName", "minute in the body", examples.TASK_OF_NAME, _NAME),
            "delete": _delete_name(),
        },
        "/task/{task_name}@{trigger_at}": {
            "get": _get("getTask", "Return a task with its payload and attempts."),
            "put": _put(
                "putTaskOfKey", "name and minute in the URL", examples.TASK_OF_KEY, _NAME, _TIME
            ),
            "delete": _delete(),
        },
        "/status": {"get": _list("getStatus", "List all tasks, as `GET /task` does.")},
        "/status/{task_name}": {
            "get": _list(
                "getStatusOfName",
                "List the tasks of a name, as `GET /task/{task_name}` does.",
                _NAME,
            )
        },
        "/status/{task_name}@{trigger_at}": {
            "get": _get(
                "getStatusOfTask", "Return a task, as `GET /task/{task_name}@{trigger_at}` does."
            )
        },
        "/reschedule": {"post": _reschedule_all()},
        "/reschedule/{task_name}": {
            "post": _reschedule("rescheduleTasksOfName", "Move the failed tasks of a name.", _NAME)
        },
        "/reschedule/{task_name}@{trigger_at}": {
            "post": _reschedule("rescheduleTask", "Move a failed task.", _NAME, _ABSOLUTE_TIME)
        },
        "/batch": {"post": _batch()},
        "/hosts": {"get": _hosts()},
        "/hosts/{host}": {"put": _put_host(), "delete": _delete_host()},
        "/forecast": {"get": _forecast()},
        "/healthz": {"get": _health()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _document()},
    }


def _operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    tag: str = "tasks",
    parameters: Iterable[str | Schema] = (),
    successes: dict[str, Any],
    errors: Iterable[str] = (),
    without: str = "",
    **keywords: Any,
) -> Operation:
    """Return an operation.

    :param parameters: its parameters; shared parameters are given by name.
    :param successes: the success responses by status.
    :param errors: names of its error responses besides those of every operation.
    :param without: an error of every operation that this one does not have.
    """
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": description,
        "tags": [tag],
        "parameters": parameter_refs(parameters),
        "responses": {**error_responses(errors, without), **successes},
        **keywords,
    }


def _links(task: str) -> dict[str, Any]:
    """Return links to the operations on a task.

    :param task: a runtime expression for the task in the response.
    """
    name = {"task_name": f"{task}/task_name"}
    key = name | {"trigger_at": f"{task}/trigger_at"}
    of_key = ("getTask", "getStatusOfTask", "rescheduleTask", "deleteTask")
    of_name = ("putTaskOfName", "getStatusOfName")
    return {
        operation: {"operationId": operation, "parameters": parameters}
        for operations, parameters in ((of_key, key), (of_name, name))
        for operation in operations
    }


def _put(operation_id: str, source: str, example: dict[str, str], *in_path: Schema) -> Operation:
    location = header(string(format="uri-reference"), "The task's path.")
    return _operation(
        operation_id,
        f"Create a task, with {source}.",
        "You can repeat the request safely. `If-Match: *` replaces the definition of a `scheduled`"
        " task.",
        parameters=(*in_path, "dry_run", "if_match", "if_none_match"),
        requestBody={"required": True, "content": content(ref("NewTask"), task=example)},
        successes={
            "200": response(
                "A task with the same definition exists, or the request was a dry run.",
                content(
                    one_of("Task", "PutPreview"),
                    task=examples.TASK,
                    dry_run=examples.PREVIEW,
                ),
            ),
            "201": response(
                "The task is created and on disk.",
                content(ref("Task"), task=examples.TASK),
                headers={"Location": location},
                links=_links("$response.body#"),
            ),
        },
        errors=("PutConflict", "PreconditionFailed", "UnsupportedMediaType", "Invalid"),
    )


def _get(operation_id: str, summary: str) -> Operation:
    return _operation(
        operation_id,
        summary,
        f"The response has the last {ATTEMPTS_PER_PAGE} attempts, and a `next` if earlier ones are"
        f" on record. callme keeps the last {MAX_ATTEMPTS:,} attempts of a task.",
        parameters=(_NAME, _ABSOLUTE_TIME, "wait", "attempts_from"),
        successes={
            "200": response(
                "The task and its attempts.",
                content(ref("Task"), task=examples.FAILED_TASK),
                headers={
                    "Link": header(
                        string(),
                        'The page of earlier attempts (`rel="next"`), if there is one.',
                        required=False,
                    )
                },
            )
        },
        errors=("NotFound", "TooManyWaiters"),
    )


_VALIDATORS = {
    "ETag": header(string(), "The version of a calendar.", required=False),
    "Last-Modified": header(
        string(), "Time of a calendar's last change, if known.", required=False
    ),
}


def _list(operation_id: str, summary: str, *in_path: Schema) -> Operation:
    following = {"start_from": "$response.body#/next"}
    if in_path:
        following = {"task_name": "$request.path.task_name", **following}
    return _operation(
        operation_id,
        summary,
        "The response is a calendar (RFC 5545) if `Accept` prefers `text/calendar` to"
        " `application/json`, or if the path ends in `.ics` and no task has this whole name."
        " `/status/.ics` is always the calendar of all tasks. A calendar contains the tasks that"
        f" are scheduled in the next {AHEAD_DAYS} days and those that failed in the last"
        f" {BACK_DAYS} days, at most {MAX_EVENTS} of each. It takes no parameters. It has an"
        " `ETag`, and a `Last-Modified` unless it changed twice within one second. A request may"
        " have `If-None-Match` or `If-Modified-Since`.",
        parameters=(*in_path, *PAGING),
        successes={
            "200": {
                "description": "A page of tasks.",
                "content": content(ref("TaskList"), page=examples.TASK_LIST)
                | content(string("A `VCALENDAR`."), CALENDAR, calendar=examples.CALENDAR),
                "headers": {
                    "Vary": header(string()),
                    "Link": header(
                        string(), 'The next page (`rel="next"`), if there is one.', required=False
                    ),
                    **_VALIDATORS,
                },
                "links": _links("$response.body#/tasks/0")
                | {
                    operation_id: {
                        "operationId": operation_id,
                        "description": "The next page.",
                        "parameters": following,
                    }
                },
            },
            "304": {
                "description": "The calendar has not changed since the copy of the client.",
                "headers": {"Vary": header(string()), **_VALIDATORS},
            },
        },
        errors=("NotFound",),
    )


_MOVED = {
    "200": response(
        "The moved tasks and the skipped ones.",
        content(ref("Rescheduled"), rescheduled=examples.RESCHEDULED),
    )
}
_DELETED = {
    "200": response(
        "The number of deleted tasks, and the running ones, which are skipped.",
        content(ref("Deleted"), deleted=examples.DELETED),
    )
}


def _reschedule(operation_id: str, summary: str, *in_path: Schema) -> Operation:
    return _operation(
        operation_id,
        summary,
        "The body contains the new time; the default is the next minute. If several tasks move, the"
        " first one (by its old time) gets that minute, and each following one gets the next free"
        " minute. A running task never moves.",
        parameters=(*in_path, "all"),
        requestBody={"required": False, "content": content(ref("NewTime"))},
        successes=_MOVED,
        errors=(
            "NotFound",
            "Conflict",
            "PreconditionFailed",
            "UnsupportedMediaType",
            "Invalid",
        ),
    )


_BULK = ("bulk_start_from", "bulk_limit", "dry_run", *FILTERS)
_BULK_RULES = (
    " At least one filter is required. If more tasks match, the response has a `next`: repeat"
    " the request with this value as `start_from`. The action continues even if the client hangs"
    " up."
)


def _reschedule_all() -> Operation:
    return _operation(
        "rescheduleTasks",
        "Move the tasks that match filters.",
        "Only failed tasks move, unless you set `all`. Each task gets the minute in the body, which"
        " is the next minute by default, or the next free minute of its name after it."
        + _BULK_RULES,
        parameters=("all", "spread", *_BULK),
        requestBody={"required": False, "content": content(ref("NewTime"))},
        successes=_MOVED,
        errors=("PreconditionFailed", "UnsupportedMediaType", "Invalid"),
    )


def _delete_all() -> Operation:
    return _operation(
        "deleteTasks",
        "Cancel and delete the tasks that match filters.",
        "Their attempts are deleted too. A running task is skipped." + _BULK_RULES,
        parameters=_BULK,
        successes=_DELETED,
        errors=("PreconditionFailed",),
    )


def _delete_name() -> Operation:
    return _operation(
        "deleteTasksOfName",
        "Cancel and delete the tasks of a name.",
        "Their attempts are deleted too. A running task is skipped.",
        parameters=(_NAME,),
        successes=_DELETED,
        errors=("NotFound", "PreconditionFailed"),
    )


def _delete() -> Operation:
    return _operation(
        "deleteTask",
        "Cancel and delete a task.",
        "Its attempts are deleted too. A running task stays: the response is `409`.",
        parameters=(_NAME, _ABSOLUTE_TIME),
        successes={"204": {"description": "The task is deleted."}},
        errors=("NotFound", "Conflict", "PreconditionFailed"),
    )


def _batch() -> Operation:
    tasks = string("One task per line, each as in `NewTask`.")
    results = string("One result per line, each as in `BatchResults`.")
    return _operation(
        "putBatch",
        "Create many tasks.",
        "The result of each task is that of its own `PUT`. An error in one task does not affect the"
        " others. callme refuses the whole batch only if it cannot parse it, or if the batch has"
        f" more than {MAX_TASKS:,} tasks or {MAX_BATCH:,} bytes.",
        parameters=("dry_run",),
        requestBody={
            "required": True,
            "content": content(ref("Batch"), tasks=[examples.NEW_TASK])
            | content(tasks, NDJSON, tasks=examples.LINES),
        },
        successes={
            "200": {
                "description": "The results in the order of the tasks, in the media type of the"
                " request.",
                "content": content(ref("BatchResults"), results=examples.BATCH_RESULTS)
                | content(results, NDJSON, results=examples.RESULT_LINES),
            }
        },
        errors=("PreconditionFailed", "UnsupportedMediaType"),
    )


def _hosts() -> Operation:
    return _operation(
        "getHosts",
        "List the hosts that tasks call, and their settings.",
        "Each host has the number of its tasks, and the results of its latest calls.",
        tag="daemon",
        parameters=("start_from_host", "limit"),
        successes={
            "200": response("A page of hosts.", content(ref("HostList"), page=examples.HOST_LIST))
        },
    )


def _put_host() -> Operation:
    return _operation(
        "putHost",
        "Pause a host or all hosts, or limit the calls to it.",
        "The body changes the settings that it contains; null resets one to its default. Settings"
        " apply to all daemons on the database together, within a second. A limit of `*` applies to"
        " each host that has none of its own. A pause of `*` applies to every host.",
        tag="daemon",
        parameters=(_HOST,),
        requestBody={"required": True, "content": content(ref("NewHostSettings"))},
        successes={
            "200": response(
                "All settings of the host.",
                content(ref("HostSettings"), settings=examples.HOST_SETTINGS),
            )
        },
        errors=("TooManyHosts", "UnsupportedMediaType", "Invalid"),
    )


def _delete_host() -> Operation:
    return _operation(
        "deleteHost",
        "Return a host or all hosts to the defaults.",
        "Its pause ends, and its limits no longer apply. The settings of `*` remain unless the path"
        " is `/hosts/*`.",
        tag="daemon",
        parameters=(_HOST,),
        successes={"204": {"description": "The host has no settings."}},
    )


def _forecast() -> Operation:
    return _operation(
        "forecast",
        "Return the number of calls ahead, and the minutes that are overloaded.",
        "It counts the next call of each `scheduled` task, by minute, without any retries. It"
        " assumes the present limits and throughput: as many calls start at once as there are"
        " slots, and each further call starts when an earlier one ends.",
        tag="daemon",
        parameters=("hours",),
        successes={
            "200": response("The forecast.", content(ref("Forecast"), forecast=examples.FORECAST))
        },
    )


def _health() -> Operation:
    return _operation(
        "health",
        "Return whether callme is healthy.",
        "callme is healthy while its scheduler runs and the database can be read and written.",
        tag="daemon",
        security=[],
        successes={
            "200": response("callme is healthy.", content(ref("Health"), ok=examples.HEALTH)),
            "503": response(
                "callme is not healthy.", content(ref("Health"), failing=examples.FAILING_HEALTH)
            ),
        },
        without="Unauthorized",
    )


def _metrics() -> Operation:
    return _operation(
        "metrics",
        "Return metrics for Prometheus.",
        "They are in the text format of Prometheus, or in OpenMetrics for a client that accepts it."
        " While the database is unavailable, the metrics that are read from it are left out.",
        tag="daemon",
        successes={
            "200": {
                "description": "The metrics.",
                "content": content(
                    string("The text format of Prometheus, 0.0.4."), TEXT, metrics=examples.METRICS
                )
                | content(
                    string("OpenMetrics 1.0.0."),
                    OPENMETRICS,
                    metrics=f"{examples.METRICS}# EOF\n",
                ),
                "headers": {"Vary": header(string())},
            }
        },
        without="Unavailable",
    )


def _service() -> Operation:
    return _operation(
        "service",
        "Return the name, the version and the paths of the service.",
        "A client that accepts `text/html` gets the web page instead.",
        tag="daemon",
        successes={
            "200": response(
                "The service.",
                content(ref("Service"), service=service_document()),
                headers={
                    "Vary": header(string()),
                    "Link": header(string(), 'This document (`rel="service-desc"`, RFC 8631).'),
                },
            )
        },
        without="Unavailable",
    )


def _document() -> Operation:
    return _operation(
        "openapi",
        "Return this document.",
        "It describes the API for generators of clients and for viewers.",
        tag="daemon",
        successes={
            "200": response(
                "This document.", content({"type": "object"}, document={"openapi": "3.1.0"})
            )
        },
        without="Unavailable",
    )
