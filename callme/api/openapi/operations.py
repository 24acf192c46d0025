"""What can be asked of callme, and every status that it may answer with."""

from __future__ import annotations

from functools import cache
from typing import Any

from ... import __version__
from ...server.channel import MAX_BATCH
from ...server.problem import encode
from ..batch import MAX_TASKS
from ..ical import AHEAD_DAYS, BACK_DAYS, MAX_EVENTS
from . import builders, schemas
from .builders import (
    CALENDAR,
    JSON,
    NDJSON,
    OPENMETRICS,
    TEXT,
    Schema,
    answer,
    asks,
    in_path,
    ref,
    refusals,
    string,
)

DESCRIPTION = """The daemon that calls you back: register a **task** (a name, a minute, an HTTP \
endpoint); when the minute comes callme makes the call, checks the answer, tries again if it must, \
and keeps a record.

A trailing slash makes no difference to a path. Where a path allows `GET`, it allows `HEAD`. What \
is not allowed is answered with `405` and `Allow`. Whatever is refused is refused as \
`application/problem+json` (RFC 9457). A parameter that callme does not know is refused."""


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
        "servers": [{"url": "/", "description": "The daemon that this comes from."}],
        # A daemon on loopback may ask for no token.
        "security": [{"bearer": []}, {}],
        "tags": [
            {"name": "tasks", "description": "Callbacks, each to be made at one minute."},
            {"name": "daemon", "description": "callme itself."},
        ],
        "paths": paths(),
        "components": {
            "schemas": schemas.request_schemas()
            | schemas.response_schemas()
            | schemas.forecast_schemas(),
            "parameters": builders.parameters(),
            "responses": builders.responses(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A line of the daemon's `--token-file`, where it has one.",
                }
            },
        },
    }


@cache
def served(pretty: bool) -> bytes:
    """Return the document as JSON, which is made once."""
    return encode(document(), pretty)


Operation = dict[str, Any]

TWO_LINES = "".join(
    f'{{"task_name": "{name}", "trigger_at": "+6h", "callback": "http://example.com/run-it"}}\n'
    for name in ("first", "second")
)


def paths() -> dict[str, Any]:
    """Return every path, and what can be asked there."""
    name = in_path("task_name", "TaskName")
    absolute, time = in_path("trigger_at", "AbsoluteTime"), in_path("trigger_at", "Time")
    return {
        "/task/": {
            "get": _list("getTasks", "List all tasks."),
            "put": _put("putTask", "NewTask", "its name and its minute in the body"),
        },
        "/task/{task_name}": {
            "parameters": [name],
            "get": _list("getTasksOfName", "List the tasks of a name.", of_name=True),
            "put": _put("putTaskOfName", "NewTaskOfName", "its minute in the body"),
            "delete": _delete_name(),
        },
        "/task/{task_name}@{trigger_at}": {
            "parameters": [name],
            "get": _get("getTask", absolute),
            "put": _put("putTaskOfKey", "NewTaskOfKey", "both in the URL", time),
            "delete": _delete(absolute),
        },
        "/status/": {"get": _list("getStatus", "List all tasks.")},
        "/status/{task_name}": {
            "parameters": [name],
            "get": _list("getStatusOfName", "List the tasks of a name.", of_name=True),
        },
        "/status/{task_name}@{trigger_at}": {
            "parameters": [name],
            "get": _get("getStatusOfTask", absolute),
        },
        "/reschedule/{task_name}": {
            "parameters": [name],
            "post": _reschedule("rescheduleTasksOfName", "Move the failed tasks of a name."),
        },
        "/reschedule/{task_name}@{trigger_at}": {
            "parameters": [name, absolute],
            "post": _reschedule("rescheduleTask", "Move a failed task."),
        },
        "/batch": {"post": _batch()},
        "/forecast": {"get": _forecast()},
        "/healthz": {"get": _health()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _document()},
    }


def _links(task: str) -> dict[str, Any]:
    """Say what can be asked next of a task, by where in the answer it stands."""
    name = {"task_name": f"{task}/task_name"}
    key = name | {"trigger_at": f"{task}/trigger_at"}
    of_key = ("getTask", "getStatusOfTask", "rescheduleTask", "deleteTask")
    of_name = ("putTaskOfName", "getStatusOfName")
    return {
        operation: {"operationId": operation, "parameters": parameters}
        for operations, parameters in ((of_key, key), (of_name, name))
        for operation in operations
    }


def _put(name: str, body: str, how: str, *in_its_path: Schema) -> Operation:
    return {
        "operationId": name,
        "summary": f"Create a task, {how}.",
        "description": "It may be repeated safely. `If-Match: *` replaces the definition of a task"
        " that is `scheduled`.",
        "tags": ["tasks"],
        "parameters": [*in_its_path, *asks("dry_run", "if_match", "if_none_match")],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref(body)}}},
        "responses": {
            "200": answer(
                "The same definition stands there already; or this was a dry run.",
                {"anyOf": [ref("Foreseen"), ref("Task")]},
            ),
            "201": answer(
                "It is created, and on disk.",
                ref("Task"),
                headers={
                    "Location": {
                        "required": True,
                        "description": "The task's path.",
                        "schema": string(format="uri-reference"),
                    }
                },
                links=_links("$response.body#"),
            ),
            **refusals(_409="Standing", _412="NotMet", _415="WrongType", _422="Invalid"),
        },
    }


def _get(name: str, *in_its_path: Schema) -> Operation:
    return {
        "operationId": name,
        "summary": "Tell one task whole.",
        "tags": ["tasks"],
        "parameters": [*in_its_path, *asks("wait")],
        "responses": {
            "200": answer("The task and its attempts.", ref("Task")),
            **refusals(_404="NotFound", _429="TooManyWait"),
        },
    }


def _list(name: str, summary: str, *, of_name: bool = False) -> Operation:
    return {
        "operationId": name,
        "summary": summary,
        "description": "Or, as a calendar (RFC 5545), those scheduled in the next"
        f" {AHEAD_DAYS} days and those failed in the last {BACK_DAYS}, at most {MAX_EVENTS} of each"
        ": where `Accept` prefers `text/calendar` to `application/json`, or the path ends in `.ics`"
        " and no task has a name that does. A calendar takes no parameters.",
        "tags": ["tasks"],
        "parameters": asks("start_from", "limit", "future_only", "state"),
        "responses": {
            "200": answer(
                "A page of tasks.",
                ref("TaskList"),
                content={
                    JSON: {"schema": ref("TaskList")},
                    CALENDAR: {"schema": string("A `VCALENDAR`.")},
                },
                headers={
                    "Vary": {"required": True, "schema": string()},
                    "Link": {
                        "description": 'The next page (`rel="next"`), where there is one.',
                        "schema": string(),
                    },
                },
                links=_links("$response.body#/tasks/0")
                | {
                    name: {
                        "operationId": name,
                        "description": "The next page.",
                        "parameters": ({"task_name": "$request.path.task_name"} if of_name else {})
                        | {"start_from": "$response.body#/next"},
                    }
                },
            ),
            **(refusals(_404="NotFound") if of_name else refusals()),
        },
    }


def _reschedule(name: str, summary: str) -> Operation:
    return {
        "operationId": name,
        "summary": summary,
        "description": "To the time in the body, else to the next minute. Of several, the first"
        " (by its old time) takes the minute asked for, each next one the next free minute."
        " A running task is never moved.",
        "tags": ["tasks"],
        "parameters": asks("all"),
        "requestBody": {"required": False, "content": {JSON: {"schema": ref("NewTime")}}},
        "responses": {
            "200": answer("What was moved, and what was left alone.", ref("Rescheduled")),
            **refusals(_404="NotFound", _409="Conflict", _415="WrongType", _422="Invalid"),
        },
    }


def _delete_name() -> Operation:
    return {
        "operationId": "deleteTasksOfName",
        "summary": "Cancel and forget the tasks of a name.",
        "tags": ["tasks"],
        "parameters": asks(),
        "responses": {
            "200": answer("How many are gone, and which are left as they run.", ref("Deleted")),
            **refusals(_404="NotFound"),
        },
    }


def _delete(*in_its_path: Schema) -> Operation:
    return {
        "operationId": "deleteTask",
        "summary": "Cancel and forget one task.",
        "tags": ["tasks"],
        "parameters": [*in_its_path, *asks()],
        "responses": {
            "204": {"description": "It is gone."},
            **refusals(_404="NotFound", _409="Conflict"),
        },
    }


def _batch() -> Operation:
    lines = string("A task a line, each as in `NewTask`.", examples=[TWO_LINES])
    return {
        "operationId": "putBatch",
        "summary": "Create many tasks.",
        "description": "Each is answered as its `PUT` would be, and a wrong one harms no other;"
        f" only what cannot be read as a whole, or is more than {MAX_TASKS:,} tasks or"
        f" {MAX_BATCH:,} bytes, is refused as a whole.",
        "tags": ["tasks"],
        "parameters": asks("dry_run"),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref("Batch")}, NDJSON: {"schema": lines}},
        },
        "responses": {
            "200": {
                "description": "The answers, in order: in a list or a line each, as asked.",
                "content": {
                    JSON: {"schema": ref("Answers")},
                    NDJSON: {"schema": string("An answer a line, each as in `Answers`.")},
                },
            },
            **refusals(_415="WrongType"),
        },
    }


def _forecast() -> Operation:
    return {
        "operationId": "forecast",
        "summary": "Tell how many calls are ahead, and which minutes are too overloaded.",
        "description": "The next call of each task that is scheduled, minute by minute; what"
        " retries may add is not known. At present rates and limits, as many calls as have a place"
        " start at once, and each further one when one before it has ended.",
        "tags": ["daemon"],
        "parameters": asks("hours"),
        "responses": {"200": answer("What is ahead.", ref("Forecast")), **refusals()},
    }


def _health() -> Operation:
    refused = refusals()
    del refused["401"]
    return {
        "operationId": "health",
        "summary": "Tell whether callme does its work.",
        "tags": ["daemon"],
        "security": [],
        "parameters": asks(),
        "responses": {
            "200": answer("It does.", ref("Health")),
            **refused,
            "503": answer("It does not.", ref("Health")),
        },
    }


def _metrics() -> Operation:
    refused = refusals()
    del refused["503"]
    return {
        "operationId": "metrics",
        "summary": "Tell Prometheus what was counted.",
        "description": "In its text format or, to whoever accepts it, in that of OpenMetrics."
        " While the database cannot be used, what it would say is left out.",
        "tags": ["daemon"],
        "parameters": asks(),
        "responses": {
            "200": {
                "description": "The metrics.",
                "content": {
                    TEXT: {"schema": string("The text format of Prometheus, 0.0.4.")},
                    OPENMETRICS: {"schema": string("OpenMetrics 1.0.0.")},
                },
            },
            **refused,
        },
    }


def _document() -> Operation:
    refused = refusals()
    del refused["503"]
    return {
        "operationId": "openapi",
        "summary": "Tell what can be asked.",
        "tags": ["daemon"],
        "parameters": asks(),
        "responses": {"200": answer("This document.", {"type": "object"}), **refused},
    }
