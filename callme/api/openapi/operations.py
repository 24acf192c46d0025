"""Operations of the API: paths, methods, parameters, and every status of their responses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from ... import __version__
from ...core.json_schema import Schema, ref, string
from ...core.task import ATTEMPTS_PER_PAGE, MAX_ATTEMPTS
from ...server.channel import MAX_BATCH
from ...server.problem import encode
from ..batch import MAX_TASKS
from ..ical import AHEAD_DAYS, BACK_DAYS, MAX_EVENTS
from ..requests import HOST_PATTERN, PAGING
from . import schemas
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
and keeps a record.

A trailing slash of a path is ignored. A path that allows `GET` allows `HEAD`. `OPTIONS` is \
answered with `204` and `Allow`, other methods with `405` and `Allow`. Every response has \
`Cache-Control: no-store`, and the `X-Request-Id` of its request, or one that callme makes. Every \
error is `application/problem+json` (RFC 9457). Unknown \
parameters are refused."""


def document() -> dict[str, Any]:
    """Return the document (OpenAPI 3.1.1)."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "callme",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The daemon that serves this document."}],
        # A daemon on loopback may need no token.
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
def served(pretty: bool) -> bytes:
    """Return the document as JSON; it is built once."""
    return encode(document(), pretty)


Operation = dict[str, Any]

TWO_LINES = "".join(
    f'{{"task_name": "{name}", "trigger_at": "+6h", "callback": "http://example.com/run-it"}}\n'
    for name in ("first", "second")
)
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
    of_name = {"parameters": [_NAME]}
    return {
        "/": {"get": _service()},
        "/task/": {
            "get": _list("getTasks"),
            "put": _put("putTask", "NewTask", "name and minute in the body"),
        },
        "/task/{task_name}": of_name
        | {
            "get": _list("getTasksOfName", of_name=True),
            "put": _put("putTaskOfName", "NewTaskOfName", "minute in the body"),
            "delete": _delete_name(),
        },
        "/task/{task_name}@{trigger_at}": of_name
        | {
            "get": _get("getTask"),
            "put": _put("putTaskOfKey", "NewTaskOfKey", "name and minute in the URL", _TIME),
            "delete": _delete(),
        },
        "/status/": {"get": _list("getStatus")},
        "/status/{task_name}": of_name | {"get": _list("getStatusOfName", of_name=True)},
        "/status/{task_name}@{trigger_at}": of_name | {"get": _get("getStatusOfTask")},
        "/reschedule/{task_name}": of_name
        | {"post": _reschedule("rescheduleTasksOfName", "Move the failed tasks of a name.")},
        "/reschedule/{task_name}@{trigger_at}": {
            "parameters": [_NAME, _ABSOLUTE_TIME],
            "post": _reschedule("rescheduleTask", "Move a failed task."),
        },
        "/batch": {"post": _batch()},
        "/hosts/": {"get": _hosts()},
        "/hosts/{host}": {
            "parameters": [_HOST],
            "put": _put_host(),
            "delete": _delete_host(),
        },
        "/forecast": {"get": _forecast()},
        "/healthz": {"get": _health()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _document()},
    }


def _operation(
    operation_id: str,
    summary: str,
    description: str = "",
    *,
    tag: str = "tasks",
    parameters: Iterable[str | Schema] = (),
    successes: dict[str, Any],
    errors: Iterable[str] = (),
    without: str = "",
    **keywords: Any,
) -> Operation:
    """Return an operation.

    :param parameters: its parameters; shared ones by name.
    :param successes: the responses that are no errors, by status.
    :param errors: names of its error responses besides those of every operation.
    :param without: an error of every operation that this one does not have.
    """
    return {
        "operationId": operation_id,
        "summary": summary,
        **({"description": description} if description else {}),
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


def _put(operation_id: str, body: str, source: str, *in_path: Schema) -> Operation:
    location = header(string(format="uri-reference"), "The task's path.")
    return _operation(
        operation_id,
        f"Create a task, with {source}.",
        "It may be repeated safely. `If-Match: *` replaces the definition of a `scheduled` task.",
        parameters=(*in_path, "dry_run", "if_match", "if_none_match"),
        requestBody={"required": True, "content": content(ref(body))},
        successes={
            "200": response(
                "A task with the same definition exists, or the request was a dry run.",
                {"anyOf": [ref("PutPreview"), ref("Task")]},
            ),
            "201": response(
                "The task is created and on disk.",
                ref("Task"),
                headers={"Location": location},
                links=_links("$response.body#"),
            ),
        },
        errors=("PutConflict", "PreconditionFailed", "UnsupportedMediaType", "Invalid"),
    )


def _get(operation_id: str) -> Operation:
    return _operation(
        operation_id,
        "Return a task with its payload and attempts.",
        f"The response has the last {ATTEMPTS_PER_PAGE} attempts, and a `next` where earlier ones"
        f" are on record. The last {MAX_ATTEMPTS:,} attempts of a task are.",
        parameters=(_ABSOLUTE_TIME, "wait", "attempts_from"),
        successes={
            "200": response(
                "The task and its attempts.",
                ref("Task"),
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


def _list(operation_id: str, *, of_name: bool = False) -> Operation:
    following = {"start_from": "$response.body#/next"}
    if of_name:
        following = {"task_name": "$request.path.task_name", **following}
    return _operation(
        operation_id,
        f"List {'the tasks of a name' if of_name else 'all tasks'}.",
        "The response is a calendar (RFC 5545) where `Accept` prefers `text/calendar` to"
        " `application/json`, or where the path ends in `.ics` and no task has a name that does. It"
        f" has the tasks scheduled in the next {AHEAD_DAYS} days and those that failed in the last"
        f" {BACK_DAYS}, at most {MAX_EVENTS} of each. A calendar takes no parameters.",
        parameters=PAGING,
        successes={
            "200": {
                "description": "A page of tasks.",
                "content": content(ref("TaskList")) | content(string("A `VCALENDAR`."), CALENDAR),
                "headers": {
                    "Vary": header(string()),
                    "Link": header(
                        string(), 'The next page (`rel="next"`), if there is one.', required=False
                    ),
                },
                "links": _links("$response.body#/tasks/0")
                | {
                    operation_id: {
                        "operationId": operation_id,
                        "description": "The next page.",
                        "parameters": following,
                    }
                },
            }
        },
        errors=("NotFound",) if of_name else (),
    )


def _reschedule(operation_id: str, summary: str) -> Operation:
    return _operation(
        operation_id,
        summary,
        "The new time is that of the body, or else the next minute. Of several tasks, the first by"
        " its old time gets that minute, and each other one the next free minute. A running task is"
        " never moved.",
        parameters=("all",),
        requestBody={"required": False, "content": content(ref("NewTime"))},
        successes={"200": response("The moved tasks and the skipped ones.", ref("Rescheduled"))},
        errors=(
            "NotFound",
            "Conflict",
            "PreconditionFailed",
            "UnsupportedMediaType",
            "Invalid",
        ),
    )


def _delete_name() -> Operation:
    return _operation(
        "deleteTasksOfName",
        "Cancel and delete the tasks of a name.",
        successes={
            "200": response(
                "The number of deleted tasks, and the running ones, which are skipped.",
                ref("Deleted"),
            )
        },
        errors=("NotFound", "PreconditionFailed"),
    )


def _delete() -> Operation:
    return _operation(
        "deleteTask",
        "Cancel and delete a task.",
        parameters=(_ABSOLUTE_TIME,),
        successes={"204": {"description": "The task is deleted."}},
        errors=("NotFound", "Conflict", "PreconditionFailed"),
    )


def _batch() -> Operation:
    tasks = string("One task a line, each as in `NewTask`.", examples=[TWO_LINES])
    results = string("One result a line, each as in `BatchResults`.")
    return _operation(
        "putBatch",
        "Create many tasks.",
        "Each task has the result that its own `PUT` would have; an error in one affects no other."
        " The batch is refused as a whole only where it cannot be parsed, or has more than"
        f" {MAX_TASKS:,} tasks or {MAX_BATCH:,} bytes.",
        parameters=("dry_run",),
        requestBody={
            "required": True,
            "content": content(ref("Batch")) | content(tasks, NDJSON),
        },
        successes={
            "200": {
                "description": "The results in the order of the tasks, in the media type of the"
                " request.",
                "content": content(ref("BatchResults")) | content(results, NDJSON),
            }
        },
        errors=("PreconditionFailed", "UnsupportedMediaType"),
    )


def _hosts() -> Operation:
    return _operation(
        "getHosts",
        "List the hosts that tasks call, and their settings.",
        tag="daemon",
        parameters=("start_from_host", "limit"),
        successes={"200": response("A page of hosts.", ref("HostList"))},
    )


def _put_host() -> Operation:
    return _operation(
        "putHost",
        "Pause a host or all hosts, or limit the calls to it.",
        "Settings that the body does not name stay; null is the default. They hold for all daemons"
        " on the database together, within a second. Those of `*` hold for each host that has none"
        " of its own; a pause of `*` holds for every host.",
        tag="daemon",
        requestBody={"required": True, "content": content(ref("NewHostSettings"))},
        successes={"200": response("All settings of the host.", ref("HostSettings"))},
        errors=("TooManyHosts", "UnsupportedMediaType", "Invalid"),
    )


def _delete_host() -> Operation:
    return _operation(
        "deleteHost",
        "Return a host or all hosts to the defaults.",
        tag="daemon",
        successes={"204": {"description": "The host has no settings."}},
    )


def _forecast() -> Operation:
    return _operation(
        "forecast",
        "Return the number of calls ahead, and the minutes that are overloaded.",
        "It counts the next call of each `scheduled` task, by minute, without any retries. The"
        " forecast uses the present limits and throughput: as many calls as there are slots start"
        " at once, each other one when a call before it has ended.",
        tag="daemon",
        parameters=("hours",),
        successes={"200": response("The forecast.", ref("Forecast"))},
    )


def _health() -> Operation:
    return _operation(
        "health",
        "Return whether callme is healthy.",
        tag="daemon",
        security=[],
        successes={
            "200": response("callme is healthy.", ref("Health")),
            "503": response("callme is not healthy.", ref("Health")),
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
                "content": content(string("The text format of Prometheus, 0.0.4."), TEXT)
                | content(string("OpenMetrics 1.0.0."), OPENMETRICS),
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
            "200": response("The service.", ref("Service"), headers={"Vary": header(string())})
        },
        without="Unavailable",
    )


def _document() -> Operation:
    return _operation(
        "openapi",
        "Return this document.",
        tag="daemon",
        successes={"200": response("This document.", {"type": "object"})},
        without="Unavailable",
    )
