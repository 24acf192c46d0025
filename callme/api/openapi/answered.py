"""What callme answers: tasks and their attempts, lists, problems."""

from __future__ import annotations

from ...core.task import Reason, State
from .notation import Schema, answered, enum, integer, listed, or_null, ref, string
from .taken import one_or_many


def schemas() -> dict[str, Schema]:
    """Return what callme answers, by name."""
    task = _task()
    standing = ref("ListedTask") | {"description": "The task that stands there."}
    return {
        "State": enum(State, "Where a task stands. A retry waits in `scheduled`."),
        "Reason": enum(Reason, "Why a task or an attempt failed."),
        "Attempt": answered(_attempt(), description="One request made for a task."),
        "Task": answered(
            task
            | {
                "payload": string(),
                "attempts": listed(ref("Attempt"), description="Each attempt that has ended."),
            },
            description="All there is to say of a task.",
        ),
        "ListedTask": answered(
            task, description="A task as it stands in a list: without payload and attempts."
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
        "task_name": ref("TaskName"),
        "trigger_at": string("The minute of the call: a Unix timestamp.", pattern="^[0-9]+$"),
        "callback": string(),
        "callback_method": string(),
        "headers": {
            "type": "object",
            "additionalProperties": string(),
            "description": "In lists and errors every value is masked, else those of secret ones.",
        },
        "expected_http_status": one_or_many(
            {"anyOf": [{"type": "integer"}, string()]}, "What counts as success."
        ),
        "retry": integer(0),
        "retry_delay": one_or_many(integer(0), "Minutes between attempts."),
        "max_delay": integer(1),
        "timeout": integer(1),
        "on_failure": or_null(string()),
        "on_success": or_null(string()),
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
        "calls_under_way": integer(0, description="Calls that this daemon is making."),
    }
    return answered(
        members,
        optional=members.keys() - {"status"},
        description="Where tokens are asked for, who brings none is told the status alone.",
    )


def _time(description: str = "") -> Schema:
    return string(description, format="date-time")
