"""Short ways to write JSON Schema (draft 2020-12, which OpenAPI 3.1 uses)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from ...server.channel import MAX_BATCH, MAX_BODY, REQUEST_SECONDS
from ..batch import MAX_TASKS
from ..requests import DEFAULT_HOURS, DEFAULT_LIMIT, MAX_HOURS, MAX_LIMIT, MAX_WAIT

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"
CALENDAR = "text/calendar"


def parameters() -> dict[str, Any]:
    """Return the parameters that several operations have."""
    return {
        "pretty": _flag("pretty", "Indent the answer."),
        "dry_run": _flag(
            "dry_run", "Do nothing, and answer what would happen: refused as it would be, or `200`."
        ),
        "hours": {
            "name": "hours",
            "in": "query",
            "description": "How far ahead to look.",
            "schema": integer(1, MAX_HOURS) | {"default": DEFAULT_HOURS},
        },
        "all": _flag("all", "Move `scheduled` and `succeeded` ones too."),
        "future_only": _flag("future_only", "Leave out those whose minute has begun."),
        "start_from": {
            "name": "start_from",
            "in": "query",
            "description": "Begin with this key, inclusive; where a name is asked for, one of it.",
            "schema": ref("Key"),
        },
        "limit": {
            "name": "limit",
            "in": "query",
            "description": "Tasks on a page, at most: one of large tasks ends before.",
            "schema": integer(1, MAX_LIMIT) | {"default": DEFAULT_LIMIT},
        },
        "state": {
            "name": "state",
            "in": "query",
            "description": "Only those in this state.",
            "schema": ref("State"),
        },
        "wait": {
            "name": "wait",
            "in": "query",
            "description": "Answer when the task changes, or after so many seconds.",
            "schema": integer(0, MAX_WAIT) | {"default": 0},
        },
        "if_match": {
            "name": "If-Match",
            "in": "header",
            "description": "Replace the definition of the task that stands there, which must be"
            " `scheduled`. callme knows no other tag.",
            "schema": string(enum=["*"]),
        },
        "if_none_match": {
            "name": "If-None-Match",
            "in": "header",
            "description": "With `*`: only create a task. callme knows no other tag.",
            "schema": string(examples=["*"]),
        },
    }


def responses() -> dict[str, Any]:
    """Return the answers that several operations give."""
    told = {
        "BadRequest": "It cannot be read: its JSON, its query string, its path.",
        "Unauthorized": "It brings no token, or one that callme does not know.",
        "Forbidden": "Its token is for reading only, or it comes from a foreign page.",
        "NotFound": "There is no such task.",
        "TooSlow": f"It took more than {REQUEST_SECONDS} s to arrive.",
        "Conflict": "Another task stands in the way, or the task's state does not allow it.",
        "TooLarge": f"Its body is larger than {MAX_BODY:,} bytes, or that of a batch than"
        f" {MAX_BATCH:,}, or a batch has more than {MAX_TASKS:,} tasks.",
        "WrongType": "Its body says that it is something else than JSON.",
        "Invalid": "A parameter is wrong, or the task could never run.",
        "TooMuch": "More is being sent to callme at once than it keeps in memory.",
        "TooManyWait": "As many clients wait as may: ask without `wait`. Or as in `TooMuch`.",
        "HeadersTooLarge": "Its headers are too large.",
    }
    answers = {name: _problem(description) for name, description in told.items()}
    answers["Unauthorized"]["headers"] = {
        "WWW-Authenticate": {"required": True, "schema": string()}
    }
    answers["Unavailable"] = _problem("The database cannot be used just now.")
    for later in ("TooMuch", "TooManyWait", "Unavailable"):
        answers[later]["headers"] = {
            "Retry-After": {
                "required": True,
                "description": "Seconds after which to try again.",
                "schema": integer(0),
            }
        }
    answers["Standing"] = _problem("Another definition stands under that key.", "PutProblem")
    answers["NotMet"] = _problem(
        "`If-None-Match: *` and the task exists; `If-Match: *` and it does not.", "PutProblem"
    )
    return answers


def _flag(name: str, description: str) -> Schema:
    return {
        "name": name,
        "in": "query",
        "description": f"{description} Its bare name says so too.",
        "allowEmptyValue": True,
        "schema": {"type": "boolean", "default": False},
    }


def in_path(name: str, schema: str) -> Schema:
    """Describe a part of a path."""
    return {"name": name, "in": "path", "required": True, "schema": ref(schema)}


def asks(*names: str) -> list[Schema]:
    """Refer to some of :func:`parameters`, and to the one that every operation has."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in (*names, "pretty")]


def _problem(description: str, schema: str = "Problem") -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": ref(schema)}},
    }


def answer(description: str, schema: Schema, **more: Any) -> dict[str, Any]:
    """Describe an answer in JSON."""
    return {"description": description, "content": {JSON: {"schema": schema}}, **more}


def refusals(**more: str) -> dict[str, Any]:
    """Return what every operation may answer, and more, each by the name of its response."""
    names = {
        "400": "BadRequest",
        "401": "Unauthorized",
        "403": "Forbidden",
        "408": "TooSlow",
        "429": "TooMuch",
        "413": "TooLarge",
        "431": "HeadersTooLarge",
        "503": "Unavailable",
    } | {status[1:]: name for status, name in more.items()}
    return {
        status: {"$ref": f"#/components/responses/{name}"} for status, name in sorted(names.items())
    }


Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Refer to a schema that has a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def string(description: str = "", **more: Any) -> Schema:
    """Describe a string."""
    return {"type": "string", **more} | ({"description": description} if description else {})


def integer(least: int, most: int | None = None, description: str = "") -> Schema:
    """Describe an integer."""
    schema: Schema = {"type": "integer", "minimum": least}
    if most is not None:
        schema["maximum"] = most
    return schema | ({"description": description} if description else {})


def listed(items: Schema, **more: Any) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items, **more}


def enum(values: type[Enum], description: str) -> Schema:
    """Describe one of some words."""
    return string(description, enum=[value.value for value in values])


def or_null(schema: Schema) -> Schema:
    """Let ``null`` stand in the place of something."""
    return {"anyOf": [schema, {"type": "null"}]}


def taken(properties: dict[str, Schema], required: Iterable[str], **more: Any) -> Schema:
    """Describe an object that callme takes: what it does not know, it refuses."""
    needed = {"required": list(required)} if required else {}
    return {
        "type": "object",
        "properties": properties,
        **needed,
        "additionalProperties": False,
        **more,
    }


def answered(properties: dict[str, Schema], optional: Iterable[str] = (), **more: Any) -> Schema:
    """Describe an object that callme answers with; a later version may say more in it."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}
