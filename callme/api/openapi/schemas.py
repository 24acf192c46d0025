"""Schemas of requests and responses."""

from __future__ import annotations

from ...core.json_schema import Schema, array, integer, nullable, one_of, ref, string
from ...core.parameters import PARAMETERS, Parameter
from ...core.task import ATTEMPTS_PER_PAGE, MAX_ATTEMPTS, Reason, State
from ...core.times import ABSOLUTE_TIME_SCHEMA, KEY_SCHEMA, NAME_SCHEMA, TIME_SCHEMA
from ...hosts.settings import MAX_CONCURRENT, MAX_PER_MINUTE
from ...reports.forecast import MAX_OVERLOADS
from ..batch import MAX_TASKS
from ..dry_run import MAX_ATTEMPTS_IN_BATCH
from . import examples
from .builders import boolean, count, enum, request_object, response_object, timestamp

_NEXT = "The first of the remaining tasks, if more match the filters: send it as `start_from`."
_WARNINGS = array(ref("Warning"), "Only in the response to a change or a dry run, if any.")


def request_schemas() -> dict[str, Schema]:
    """Return the schemas of requests, by name."""
    parameters = {parameter.name: _parameter_schema(parameter) for parameter in PARAMETERS}
    in_url = ("task_name", "trigger_at")
    required = [p.name for p in PARAMETERS if p.is_required and p.name not in in_url]
    return {
        "TaskName": NAME_SCHEMA,
        "Time": TIME_SCHEMA,
        "AbsoluteTime": ABSOLUTE_TIME_SCHEMA,
        "Key": KEY_SCHEMA,
        "NewTask": request_object(
            parameters,
            required,
            examples=[examples.NEW_TASK],
            description="`task_name` and `trigger_at` are required too, each in the body or in the"
            " URL. If both contain it, the values must agree.",
        ),
        "Batch": array(ref("NewTask"), maxItems=MAX_TASKS),
        "NewTime": request_object(
            {"trigger_at": ref("Time")}, (), examples=[{"trigger_at": "+5m"}]
        ),
        "NewHostSettings": request_object(
            {
                "max_concurrent": nullable(
                    integer(1, MAX_CONCURRENT), "Maximum calls in flight; null for `--per-host`."
                ),
                "max_per_minute": nullable(
                    integer(1, MAX_PER_MINUTE),
                    "Maximum calls that start in any minute; null for no limit.",
                ),
                "paused": {
                    "description": "`true` if no call may start, or the time until which none may.",
                    "anyOf": [{"type": "boolean"}, {"type": "null"}, ref("Time")],
                },
            },
            (),
            minProperties=1,
            examples=[{"paused": "+30m"}, {"max_per_minute": 10}],
        ),
    }


def _parameter_schema(parameter: Parameter) -> Schema:
    if "$ref" in parameter.schema:
        return parameter.schema
    schema = parameter.schema | {"description": parameter.documentation}
    # Some generated clients send every default, and some of these send the text "[]" for an empty
    # list. Empty defaults are therefore not part of the schema; they have no effect.
    if parameter.is_required or parameter.default in ("", [], {}, None):
        return schema
    return schema | {"default": parameter.default}


def response_schemas() -> dict[str, Schema]:
    """Return the schemas of responses, by name."""
    return {
        "State": enum(State, "State of a task. A task that awaits a retry is `scheduled`."),
        "Reason": enum(Reason, "Reason for the failure of a task or an attempt."),
        **_task_schemas(),
        **_put_schemas(),
        **_reschedule_schemas(),
        **_problem_schemas(),
        **_forecast_schemas(),
        **_host_schemas(),
        "Health": _health(),
        "Service": response_object(
            {
                "name": string("`callme`."),
                "version": string("The version of the daemon."),
                "links": {
                    "type": "object",
                    "description": "Paths to start from.",
                    "additionalProperties": string(format="uri-reference"),
                },
            }
        ),
    }


def _task_schemas() -> dict[str, Schema]:
    task = {
        "task": ref("Key"),
        **{name: _or_damaged(schema) for name, schema in _stored_members().items()},
        "damaged": array(
            string(),
            "Names of the members whose stored values cannot be read, so that they are null."
            " Unreadable attempts are omitted. An intact task has no `damaged`.",
        ),
    }
    unlisted = {parameter.name for parameter in PARAMETERS if not parameter.is_listed}
    listed_task = {name: schema for name, schema in task.items() if name not in unlisted}
    return {
        "Attempt": response_object(
            {
                "number": count(
                    "Number of the attempt; it continues to grow after a reschedule.", 1
                ),
                "started_at": timestamp("Start of the request."),
                "lateness_ms": count("Milliseconds from `trigger_at` to the start of the request."),
                "duration_ms": nullable(
                    count("Milliseconds that the call took; null if callme stopped during it.")
                ),
                "status": nullable(count("Status of the response, if there was one.")),
                "reason": nullable(ref("Reason")),
                "detail": string("A sentence for a person."),
                "body": string("The first 1 KiB of the response's body."),
                "node": nullable(string("Name of the daemon that made the attempt.")),
            },
            description="A request made for a task.",
        ),
        "Task": response_object(
            task | _attempt_members() | {"warnings": _WARNINGS},
            optional=(*unlisted, "damaged", "attempts_dropped", "next", "warnings"),
            description="A task with its payload and attempts. If the `PUT` contained"
            " `payload_base64`, the task has that member instead of `payload`.",
        ),
        "Warning": response_object(
            {
                "pointer": string("A JSON Pointer to a parameter."),
                "detail": string("A sentence for a person."),
            },
            description="Something that is accepted and that you may not have intended.",
        ),
        "ListedTask": response_object(
            listed_task,
            optional=("damaged",),
            description="A task in a list: without payload and attempts.",
        ),
        "TaskList": response_object(
            {
                "tasks": array(ref("ListedTask"), "In the order of the request."),
                "next": ref("Key", "The `start_from` of the next page, if there is one."),
            },
            optional=("next",),
        ),
    }


def _stored_members() -> dict[str, Schema]:
    """Return the schemas of the members of a task that may be damaged."""
    return {
        **{parameter.name: parameter.response_schema for parameter in PARAMETERS},
        "state": ref("State"),
        "reason": nullable(ref("Reason")),
        "detail": string("A sentence for a person."),
        "attempts_used": count("Attempts made, of `1 + retry`."),
        "attempts_left": count("Attempts still possible; 0 for a task that has ended."),
        "next_attempt_at": nullable(timestamp("Time of the next attempt of a `scheduled` task.")),
        "created_at": timestamp("Time of the `PUT`."),
        "finished_at": nullable(timestamp("Time of the success or the failure.")),
    }


def _or_damaged(schema: Schema) -> Schema:
    """Return the schema of a member of a task, which is null if the stored value is damaged."""
    null = {"type": "null"}
    return schema if null in schema.get("anyOf", ()) else nullable(schema)


def _attempt_members() -> dict[str, Schema]:
    """Return the schemas of the members of a task that describe its attempts."""
    return {
        "attempts": array(
            ref("Attempt"),
            f"At most {ATTEMPTS_PER_PAGE} attempts that have ended, in order: the last ones, unless"
            " the request has a `start_from`.",
            maxItems=ATTEMPTS_PER_PAGE,
        ),
        "attempts_dropped": count(
            f"Earlier attempts, no longer on record: callme keeps the last {MAX_ATTEMPTS:,}.",
            1,
        ),
        "next": string(
            "The `start_from` of the page of earlier attempts, if there is one.",
            pattern="^[0-9]+$",
        ),
    }


def _preview_schemas() -> dict[str, Schema]:
    preview: dict[str, Schema] = {
        "dry_run": {"const": True, "description": "Nothing was changed."},
        "status": {
            "type": "integer",
            "enum": [200, 201],
            "description": "The status of the real `PUT`.",
        },
        "would": string(
            "Create the task, replace its definition, or keep the existing task.",
            enum=["create", "replace", "keep"],
        ),
        "task": ref("Task", "The task after the `PUT`."),
        "attempts_at": array(
            timestamp(),
            "The minute of each attempt, if each one fails within its minute.",
        ),
        "expires_at": timestamp("The time from which on no request starts."),
        "calls_in_minute": count("Tasks due in the minute, including this one.", 1),
        "calls_to_host": count(
            "Tasks due in the minute whose callback has the same host and port.", 1
        ),
        "lateness_ms": count(
            "Expected lateness of the last of these calls, in milliseconds, if earlier minutes"
            " leave no backlog.",
        ),
        "rate": ref("Rate"),
        "host_rate": ref("Rate"),
        "warnings": _WARNINGS,
    }
    of_batch = preview | {
        "task": ref("ListedTask", "The task after the `PUT`."),
        "attempts_at": array(
            timestamp(),
            "The minutes of the first attempts, if each one fails within its minute.",
            maxItems=MAX_ATTEMPTS_IN_BATCH,
        ),
    }
    optional = preview.keys() - {"dry_run", "status", "would", "task"}
    return {
        "PutPreview": response_object(
            preview,
            optional=optional,
            description="The response to a dry run. If the existing task is kept, the forecast is"
            " omitted.",
        ),
        "BatchPreview": response_object(
            of_batch,
            optional=optional,
            description="The result of one task in the dry run of a batch.",
        ),
    }


def _put_schemas() -> dict[str, Schema]:
    return {
        **_preview_schemas(),
        "PutResult": response_object(
            {
                "status": {
                    "type": "integer",
                    "enum": [200, 201],
                    "description": "201: created. 200: the same task exists.",
                },
                "task": ref("Key"),
                "warnings": _WARNINGS,
            },
            optional=("warnings",),
        ),
        "BatchResults": array(
            one_of("PutResult", "BatchPreview", "PutProblem"),
            "The result of each task's `PUT`, in order.",
        ),
    }


def _reschedule_schemas() -> dict[str, Schema]:
    return {
        "Moved": response_object(
            {
                "from": ref("Key", "The old key."),
                "to": ref("Key", "The new key."),
            }
        ),
        "Skipped": response_object(
            {"task": ref("Key"), "reason": string("The reason for skipping the task.")}
        ),
        "Rescheduled": response_object(
            {
                "rescheduled": array(ref("Moved"), "The moved tasks."),
                "skipped": array(ref("Skipped"), "The tasks that were not moved."),
                "next": ref("Key", _NEXT),
                "warnings": _WARNINGS,
            },
            optional=("next", "warnings"),
        ),
        "Deleted": response_object(
            {
                "deleted": count("The number of deleted tasks."),
                "skipped": array(ref("Skipped"), "The running tasks."),
                "next": ref("Key", _NEXT),
            },
            optional=("next",),
        ),
    }


def _problem_schemas() -> dict[str, Schema]:
    problem = {
        "type": string("Always `about:blank`.", format="uri-reference", examples=["about:blank"]),
        "title": string("The status in words."),
        "status": integer(400, 599, "The status of the response."),
        "detail": string("A sentence for a person."),
        "errors": array(ref("FieldError"), "Each error in the input."),
    }
    existing = ref("ListedTask", "The existing task.")
    return {
        "FieldError": response_object(
            {
                "pointer": string(
                    "A JSON Pointer into the body, or the name of a part of the URL."
                ),
                "detail": string("The value, and what was expected."),
            }
        ),
        "Problem": response_object(problem, optional=("errors",), description="RFC 9457."),
        "PutProblem": response_object(
            problem | {"task": existing},
            optional=("errors", "task"),
            description="RFC 9457, with the existing task in a conflict.",
        ),
    }


def _forecast_schemas() -> dict[str, Schema]:
    minute = {
        "minute": timestamp("The minute in which the calls are due."),
        "calls": count("Calls that are due.", 1),
    }
    overload = minute | {
        "lateness_ms": count("Expected lateness of the last of these calls, in milliseconds."),
        "too_late": count("Maximum number of these calls that start too late.", 1),
    }
    host = string("A host and port; null for all calls of this daemon.")
    overloads = {
        "host": nullable(host),
        "rate": ref("Rate"),
        "minutes": array(ref("OverloadedMinute"), "Ordered by time."),
    }
    forecast = {
        "as_of": timestamp("Time of the query; its result is cached for a short time."),
        "from": timestamp("The minute of `as_of`."),
        "until": timestamp("End of the forecast, exclusive."),
        "calls": count("All calls of the forecast, including those that are due already."),
        "rate": ref("Rate"),
        "minutes": array(response_object(minute), "The minutes that have calls."),
        "overloaded": array(
            response_object(overloads),
            "Minutes whose calls cannot all start within their `max_delay`, at most"
            f" {MAX_OVERLOADS:,}.",
        ),
        "complete": boolean("False if the forecast is truncated."),
    }
    rate = {
        "calls_per_second": {
            "type": "number",
            "minimum": 0,
            "description": "Calls that callme completes in a second.",
        },
        "measured": boolean(
            "True if the rate is measured; false if it is estimated from the limits and the rates"
            " of other calls."
        ),
    }
    return {
        "Forecast": response_object(forecast),
        "Rate": response_object(
            rate, description="Throughput of this daemon under load, in calls per second."
        ),
        "OverloadedMinute": response_object(overload),
    }


def _host_schemas() -> dict[str, Schema]:
    settings = {
        "max_concurrent": nullable(count("Calls in flight; null for `--per-host`.", 1)),
        "max_per_minute": nullable(count("Calls that start in a minute; null for no limit.", 1)),
        "paused": {
            "description": "Whether the host is paused, or the time until which it is.",
            "anyOf": [{"type": "boolean"}, timestamp(), {"type": "null"}],
        },
        "damaged": array(
            string(),
            "The settings whose stored values cannot be read: they are null. A damaged limit does"
            " not hold; a damaged pause holds until it is set again. It is absent where all are"
            " intact.",
        ),
    }
    damaged = ("damaged",)
    host = {
        "host": string("`host:port`."),
        "scheduled": count("Tasks that are `scheduled`."),
        "due": count("Scheduled tasks that are due."),
        "in_flight": count("Calls in flight, of all daemons."),
        "last_success_at": nullable(timestamp("Last success of this daemon since its start.")),
        "last_failure_at": nullable(timestamp("Last failure of this daemon since its start.")),
        "failures_in_a_row": count("Attempts of this daemon that failed since the last success."),
    }
    return {
        "HostSettings": response_object(
            {"host": string("`host:port`, or `*`."), **settings}, optional=damaged
        ),
        "Host": response_object(host | settings, optional=damaged),
        "HostList": response_object(
            {
                "all_hosts": response_object(
                    settings, optional=damaged, description="The settings of `*`."
                ),
                "hosts": array(ref("Host"), "Ordered by name."),
                "next": string("The `start_from` of the next page, if there is one."),
            },
            optional=("next",),
        ),
    }


def _health() -> Schema:
    members = {
        "status": string("The health as a whole.", enum=["ok", "failing"]),
        "ticking": boolean("Whether the scheduler runs."),
        "writable": boolean("Whether the last write to the database succeeded."),
        "last_tick": nullable(timestamp("Time of the scheduler's last run.")),
        "backlog": nullable(count("Due tasks that are not claimed; null if unknown.")),
        "calls_in_flight": count("Calls in flight of this daemon."),
        "saturated_seconds": count(
            "Seconds for which calls have found no free slot; 0 if none wait."
        ),
        "all_paused": boolean("Whether the calls to all hosts are paused."),
        "paused_hosts": count("Hosts that are paused by settings of their own."),
    }
    return response_object(
        members,
        optional=members.keys() - {"status"},
        description="If the daemon uses tokens, a client without one receives the status only.",
    )
