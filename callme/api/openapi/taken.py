"""What callme takes: names, times, keys, and the parameters of a task."""

from __future__ import annotations

from ...core.callback import IN_URLS, LABEL, MAX_CALLBACK
from ...core.definition import (
    FORBIDDEN_METHODS,
    MAX_LIST,
    MAX_METHOD,
    MAX_MINUTES,
    MAX_PAYLOAD,
    MAX_RETRY,
    MAX_TIMEOUT,
    STATUSES,
)
from ...core.headers import (
    CONTROLS,
    FRAMING,
    MASK,
    MAX_HEADERS,
    MAX_HEADERS_SIZE,
    SENT_BY_CALLME,
    TOKEN,
)
from ...core.status import whole
from ...core.task import Definition, State, Task
from ...core.trigger import LAST_SECOND, MAX_NAME, NOT_IN_NAMES, RELATIVE, RFC3339, UNIX
from ..batch import MAX_TASKS
from .notation import Schema, any_case, integer, listed, or_null, ref, string, taken

# A surrogate, which the code refuses too, cannot stand in UTF-8: no pattern need name it.
_IN_NAMES = NOT_IN_NAMES.pattern.replace(r"\ud800-\udfff", "").replace("[", "[^")
_ABSOLUTE = f"{UNIX.pattern}|{RFC3339.pattern}"
_HOST = rf"{LABEL.pattern}(?:\.{LABEL.pattern})*\.?|\[[0-9A-Fa-f:.]+\]"
_CONTROLS = CONTROLS.pattern.strip("[]")
_REQUIRED = ("task_name", "trigger_at", "callback")
_YEARS = "From 1970 to the year 9999."

EXAMPLE = {"trigger_at": "+6h", "callback": "http://example.com/run-it"}
"""The first task of the tour."""


def schemas() -> dict[str, Schema]:
    """Return what callme takes, by name."""
    known = _parameters()
    return {
        "TaskName": _task_name(),
        "Time": _time(),
        "AbsoluteTime": _absolute_time(),
        "Key": _key(),
        "NewTask": taken(
            known,
            _REQUIRED,
            examples=[{"task_name": "trial-end", **EXAMPLE}],
        ),
        "NewTaskOfName": taken(
            known,
            ("trigger_at", "callback"),
            examples=[EXAMPLE],
            description="A `task_name` must agree with the one in the URL.",
        ),
        "NewTaskOfKey": taken(
            known,
            ("callback",),
            examples=[{"callback": EXAMPLE["callback"]}],
            description="A `task_name` and a `trigger_at` must agree with those in the URL.",
        ),
        "Batch": listed(ref("NewTask"), maxItems=MAX_TASKS),
        "NewTime": taken({"trigger_at": ref("Time")}, (), examples=[{"trigger_at": "+5m"}]),
    }


def _task_name() -> Schema:
    return string(
        f"1 to {MAX_NAME} characters of Unicode, no `@`, no `/`, no control characters.",
        minLength=1,
        maxLength=MAX_NAME,
        pattern=f"^{_IN_NAMES}+$",
        examples=["trial-end"],
    )


def _time() -> Schema:
    return {
        "description": "When to make the call: a Unix timestamp or an RFC 3339 time with an offset,"
        " of which the minute counts that it lies in; or `+<integer>` and `m`, `h` or `d`: the"
        f" first minute that begins then or later, `+0m` being the present one. {_YEARS}",
        "anyOf": [
            string(pattern=f"^(?:{RELATIVE.pattern}|{_ABSOLUTE})$"),
            integer(0, LAST_SECOND),
        ],
        "examples": ["+6h", "1858809600", "2028-11-26T00:00:00Z"],
    }


def _absolute_time() -> Schema:
    return string(
        "A Unix timestamp or an RFC 3339 time with an offset, of which the minute counts that it"
        f" lies in. {_YEARS}",
        pattern=f"^(?:{_ABSOLUTE})$",
        examples=["1858809600"],
    )


def _key() -> Schema:
    return string(
        "What identifies a task: `<task_name>@<trigger_at>`.",
        pattern=f"^{_IN_NAMES}{{1,{MAX_NAME}}}@(?:{_ABSOLUTE})$",
        examples=["trial-end@1858809600"],
    )


def _parameters() -> dict[str, Schema]:
    known: dict[str, Schema] = {
        "task_name": ref("TaskName"),
        "trigger_at": ref("Time"),
        "callback": _callback(),
        "callback_method": string(
            f"Any method but {' and '.join(FORBIDDEN_METHODS)}; it is upper-cased.",
            maxLength=MAX_METHOD,
            pattern=f"^{TOKEN.pattern}$",
            **{"not": {"pattern": f"^(?:{any_case(FORBIDDEN_METHODS)})$"}},
        ),
        "payload": string(
            f"The request's body: at most {MAX_PAYLOAD:,} bytes of UTF-8.", maxLength=MAX_PAYLOAD
        ),
        "headers": _headers(),
        "expected_http_status": one_or_many(
            _status(), 'What counts as success: `204`, `"2xx"`, `["2xx", 404]`.'
        ),
        "retry": integer(0, MAX_RETRY, "Attempts after the first one."),
        "retry_delay": one_or_many(
            integer(0, MAX_MINUTES),
            "Minutes between attempts; the last one of a list repeats: `[1, 5, 30]`.",
        ),
        "max_delay": integer(
            1, MAX_MINUTES, "No request starts this many minutes after `trigger_at` or later."
        ),
        "timeout": integer(1, MAX_TIMEOUT, "Seconds for the whole call, connect to last byte."),
        "on_failure": or_null(_callback())
        | {"description": "A URL that is told, by a `POST`, when the task has failed."},
        "on_success": or_null(_callback())
        | {"description": "A URL that is told, by a `POST`, when the task has succeeded."},
    }
    least = Definition(task_name="", trigger_at=0, callback="")
    shown = whole(Task(least, State.SCHEDULED, None, "", None, 0, 0, None))
    for name in known.keys() - _REQUIRED:
        known[name]["default"] = shown[name]
    return known


def one_or_many(one: Schema, description: str) -> Schema:
    """Describe a value, or a list of such."""
    return {
        "anyOf": [one, listed(one, minItems=1, maxItems=MAX_LIST)],
        "description": description,
    }


def _callback() -> Schema:
    return string(
        "The URL to call: absolute, `http` or `https`, ASCII, no user info.",
        maxLength=MAX_CALLBACK,
        pattern=f"^(?:{any_case(['http'])})[Ss]?://(?:{_HOST})(?::[0-9]+)?"
        f"(?:[/?#]{IN_URLS.pattern})?$",
        examples=[EXAMPLE["callback"]],
    )


def _status() -> Schema:
    return {"anyOf": [integer(*STATUSES), string(pattern="^[1-5][Xx]{2}$", examples=["2xx"])]}


def _headers() -> Schema:
    own = any_case(FRAMING | SENT_BY_CALLME).replace("-", "[-_]")
    inner, edge = f"[^{_CONTROLS}]", f"[^{_CONTROLS}\\x09 ]"
    return {
        "type": "object",
        "description": f"Sent with the request: of {MAX_HEADERS_SIZE:,} bytes in all, no name"
        " twice, none that HTTP or callme itself sets. In answers, the value of one whose name"
        f' looks secret is `"{MASK}"`.',
        "maxProperties": MAX_HEADERS,
        "propertyNames": {"pattern": f"^{TOKEN.pattern}$", "not": {"pattern": f"^(?:{own})$"}},
        "additionalProperties": string(pattern=f"^(?:{edge}(?:{inner}*{edge})?)?$"),
        "examples": [{"Authorization": "Bearer 0123456789"}],
    }
