"""What callme takes: names, times, keys, and the parameters of a task."""

from __future__ import annotations

from ...core.parameters import PARAMETERS
from ...core.task import Reason, State
from ...core.times import ABSOLUTE_TIME_SCHEMA, KEY_SCHEMA, NAME_SCHEMA, TIME_SCHEMA
from ...reports.forecast import MAX_OVERLOADS
from ..batch import MAX_TASKS
from ..dry_run import MOST_IN_BATCH
from .builders import Schema, answered, enum, integer, listed, or_null, ref, string, taken


def forecast_schemas() -> dict[str, Schema]:
    """Return what callme answers, by name."""
    return {
        "Foreseen": _foreseen(),
        "Forecast": _forecast(),
        "Rate": answered(
            {
                "calls_per_second": {
                    "type": "number",
                    "minimum": 0,
                    "description": "Calls that start, and end, in a second.",
                },
                "measured": {
                    "type": "boolean",
                    "description": "Whether calls were seen that it comes from; else it is reckoned"
                    " of the limits and what is known of other calls.",
                },
            },
            description="How many calls this daemon makes in a second where there are enough.",
        ),
        "OverloadedMinute": answered(
            {
                "minute": _time("When they are due."),
                "calls": integer(1, description="How many are due then."),
                "lateness_ms": integer(0, description="When the last of them would start."),
                "too_late": integer(1, description="How many at most would start too late."),
            }
        ),
    }


def _foreseen() -> Schema:
    members: dict[str, Schema] = {
        "dry_run": {"const": True, "description": "Nothing was done."},
        "status": {"type": "integer", "enum": [200, 201], "description": "That of the true `PUT`."},
        "would": string(
            "Create the task, replace its definition, or keep it as it is.",
            enum=["create", "replace", "keep"],
        ),
        "task": ref("ListedTask")
        | {"description": "As it would stand, its payload too; in a batch without."},
        "attempts_at": listed(
            _time(),
            description="The minute of each attempt, if all fail within their own; in a batch the"
            f" first {MOST_IN_BATCH}.",
        ),
        "expires_at": _time("No request starts then or later."),
        "calls_in_minute": integer(1, description="How many tasks are due then, it among them."),
        "calls_to_host": integer(1, description="... of them to its host and port."),
        "lateness_ms": integer(
            0, description="When the last of them would start, if nothing is left over from before."
        ),
        "rate": ref("Rate"),
        "host_rate": ref("Rate"),
    }
    return answered(
        members,
        optional=members.keys() - {"dry_run", "status", "would", "task"},
        description="The answer to a dry run. Where the task is kept, nothing is foreseen.",
    )


def _forecast() -> Schema:
    by_host = answered(
        {
            "host": or_null(string("A host and port; null for all calls of this daemon.")),
            "rate": ref("Rate"),
            "minutes": listed(ref("OverloadedMinute"), description="By time."),
        }
    )
    return answered(
        {
            "as_of": _time("When that was looked up: whoever asks soon is told the same."),
            "from": _time("The minute that it was then."),
            "until": _time("What is due from then on is left out."),
            "calls": integer(0, description="In all; those that wait already among them."),
            "rate": ref("Rate"),
            "minutes": listed(
                answered(
                    {
                        "minute": _time("When they are due."),
                        "calls": integer(1, description="How many are due then."),
                    }
                ),
                description="Those that have calls.",
            ),
            "overloaded": listed(
                by_host,
                description="The minutes whose calls cannot all start within their `max_delay`, at"
                f" most {MAX_OVERLOADS:,}.",
            ),
            "complete": {
                "type": "boolean",
                "description": "Whether that is all; else there was too much to look at.",
            },
        }
    )


def response_schemas() -> dict[str, Schema]:
    """Return what callme answers, by name."""
    task = _task()
    listed_task = {name: schema for name, schema in task.items() if name not in _UNLISTED}
    standing = ref("ListedTask") | {"description": "The task that stands there."}
    return {
        "State": enum(State, "Where a task stands. A retry waits in `scheduled`."),
        "Reason": enum(Reason, "Why a task or an attempt failed."),
        "Attempt": answered(_attempt(), description="One request made for a task."),
        "Task": answered(
            task | {"attempts": listed(ref("Attempt"), description="Each attempt that has ended.")},
            description="All there is to say of a task.",
        ),
        "ListedTask": answered(
            listed_task, description="A task as it stands in a list: without payload and attempts."
        ),
        "TaskList": answered(
            {
                "tasks": listed(ref("ListedTask"), description="By name, then by time."),
                "next": ref("Key") | {"description": "Where there is more: ask for it with this."},
            },
            optional=("next",),
        ),
        "Moved": answered(
            {
                "from": ref("Key") | {"description": "Its key until now."},
                "to": ref("Key") | {"description": "Its key from now on."},
            }
        ),
        "Skipped": answered({"task": ref("Key"), "reason": string("Why it was left alone.")}),
        "Rescheduled": answered(
            {
                "rescheduled": listed(ref("Moved"), description="What was moved."),
                "skipped": listed(ref("Skipped"), description="What was left alone."),
            }
        ),
        "Deleted": answered(
            {
                "deleted": integer(0, description="How many."),
                "skipped": listed(ref("Skipped"), description="What was left alone: it runs."),
            }
        ),
        "Answers": listed(
            {"anyOf": [ref("Foreseen"), ref("Put"), ref("PutProblem")]},
            description="What each `PUT` would have been answered, in order.",
        ),
        "Put": answered(
            {
                "status": {
                    "type": "integer",
                    "enum": [200, 201],
                    "description": "201: created. 200: it stood there already.",
                },
                "task": ref("Key"),
            }
        ),
        "FieldError": answered(
            {
                "pointer": string(
                    "A JSON Pointer into the body, or the name of what stands in the URL."
                ),
                "detail": string("The value, and what was expected."),
            }
        ),
        "Problem": answered(_problem(), optional=("errors",), description="RFC 9457."),
        "PutProblem": answered(
            _problem() | {"task": standing},
            optional=("errors", "task"),
            description="RFC 9457, and the task that stands in the way.",
        ),
        "Health": _health(),
    }


def _task() -> dict[str, Schema]:
    return {
        "task": ref("Key"),
        **{parameter.name: parameter.response_schema for parameter in PARAMETERS},
        "state": ref("State"),
        "reason": or_null(ref("Reason")),
        "detail": string("A sentence for a person."),
        "attempts_used": integer(0, description="Of the `1 + retry`."),
        "attempts_left": integer(0, description="None are left once it has ended."),
        "next_attempt_at": or_null(_time("When the next attempt is made, while `scheduled`.")),
        "created_at": _time("When it was put."),
        "finished_at": or_null(_time("When it succeeded or failed, if it has.")),
    }


def _attempt() -> dict[str, Schema]:
    return {
        "number": integer(1, description="Counts on over reschedules."),
        "started_at": _time("When its request started."),
        "lateness_ms": integer(0, description="How long after `trigger_at` it started."),
        "duration_ms": or_null(integer(0, description="How long it took, if callme saw its end.")),
        "status": or_null(integer(0, description="The answer's status, if there was an answer.")),
        "reason": or_null(ref("Reason")),
        "detail": string("A sentence for a person."),
        "body": string("The first 1 KiB of the answer."),
        "node": or_null(string("The name of the daemon that made it.")),
    }


def _problem() -> dict[str, Schema]:
    return {
        "type": string("Always `about:blank`: `title` says it.", format="uri-reference"),
        "title": string("The status in words."),
        "status": integer(400, 599, "The answer's status."),
        "detail": string("A sentence for a person."),
        "errors": listed(ref("FieldError"), description="Each thing wrong with the input."),
    }


def _health() -> Schema:
    members = {
        "status": string("Whether all is well.", enum=["ok", "failing"]),
        "ticking": {"type": "boolean", "description": "Whether callme looks for what is due."},
        "writable": {"type": "boolean", "description": "Whether the last write could be made."},
        "last_tick": or_null(_time("When it last looked for what is due.")),
        "backlog": or_null(
            integer(0, description="Tasks due and not yet claimed; null where it is not known.")
        ),
        "calls_in_flight": integer(0, description="Calls that this daemon is making."),
    }
    return answered(
        members,
        optional=members.keys() - {"status"},
        description="Where tokens are asked for, who brings none is told the status alone.",
    )


def _time(description: str = "") -> Schema:
    return string(description, format="date-time")


_REQUIRED = tuple(parameter.name for parameter in PARAMETERS if parameter.is_required)
_UNLISTED = frozenset(parameter.name for parameter in PARAMETERS if not parameter.is_listed)

EXAMPLE = {"trigger_at": "+6h", "callback": "http://example.com/run-it"}
"""The first task of the tour."""


def request_schemas() -> dict[str, Schema]:
    """Return what callme takes, by name."""
    known = _parameters()
    return {
        "TaskName": NAME_SCHEMA,
        "Time": TIME_SCHEMA,
        "AbsoluteTime": ABSOLUTE_TIME_SCHEMA,
        "Key": KEY_SCHEMA,
        "NewTask": taken(
            known,
            _REQUIRED,
            examples=[{"task_name": "trial-end", **EXAMPLE}],
        ),
        "NewTaskOfName": taken(
            known,
            [name for name in _REQUIRED if name != "task_name"],
            examples=[EXAMPLE],
            description="A `task_name` must agree with the one in the URL.",
        ),
        "NewTaskOfKey": taken(
            known,
            [name for name in _REQUIRED if name not in ("task_name", "trigger_at")],
            examples=[{"callback": EXAMPLE["callback"]}],
            description="A `task_name` and a `trigger_at` must agree with those in the URL.",
        ),
        "Batch": listed(ref("NewTask"), maxItems=MAX_TASKS),
        "NewTime": taken({"trigger_at": ref("Time")}, (), examples=[{"trigger_at": "+5m"}]),
    }


def _parameters() -> dict[str, Schema]:
    """Return the members of a new task."""
    return {
        parameter.name: parameter.schema
        if "$ref" in parameter.schema
        else parameter.schema
        | {"description": parameter.documentation}
        | ({} if parameter.is_required else {"default": parameter.default})
        for parameter in PARAMETERS
    }
