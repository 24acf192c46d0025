"""Changes to the requests that schemathesis generates: see ``tests/fuzz/test_fuzz.py``.

No callback may leave this machine, and no task may fall due. Rules that a schema cannot express
(the name in the URL must equal that in the body) are enforced here.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData

from callme.api.openapi.operations import document
from callme.api.requests import MAX_WAIT_SECONDS
from callme.core.headers import parse_headers
from callme.core.times import parse_key, parse_trigger, rfc3339
from callme.errors import InvalidValue
from callme.hosts.settings import parse_host
from tests.helpers.openapi_checks import is_a, is_parameter

FAR = 4_102_444_800
"""2100-01-01T00:00:00Z."""
CLOSED = "http://127.0.0.1:1/"
"""The callback host: nothing listens there."""
FILTERS = {"state", "reason", "host", "prefix", "label", "due_from", "due_before"}
"""Parameters of which a request that changes many tasks has one."""
_HOST = document()["paths"]["/hosts/{host}"]["put"]["parameters"][0]
HOST_PATTERN = _HOST["schema"]["pattern"]


@schemathesis.serializer("application/x-ndjson")
def encode_lines(context: Any, value: Any) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    set_linked(case)
    # Values in a path are percent-encoded already.
    path = {name: unquote(in_url(value)) for name, value in case.path_parameters.items()}
    if case.method == "PUT" and is_a("Time", path.get("trigger_at")):
        path["trigger_at"] = future(path["trigger_at"], case.body)
    elif is_a("AbsoluteTime", path.get("trigger_at")):
        path["trigger_at"] = accepted(path["trigger_at"], parse_now, str(FAR))
    if "trigger_at" in path:
        case.path_parameters["trigger_at"] = quote(path["trigger_at"], safe="")
    if "host" in path and re.fullmatch(HOST_PATTERN, path["host"]):
        host = accepted(path["host"], parse_host, "127.0.0.1:1")
        case.path_parameters["host"] = quote(host, safe="")
    if "If-None-Match" in case.headers:
        # This condition is never met together with the other one.
        case.headers.pop("If-Match", None)
    tame_query(case.query, path)
    add_filter(case)
    if case.media_type == "application/x-ndjson" and isinstance(case.body, str):
        case.body = "\n".join(tamed_line(line) for line in case.body.split("\n"))
    else:
        if isinstance(case.body, (dict, list)):
            case.body = whole_numbers(case.body)
        for body in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(body, dict):
                tame(body, path)
    # The validity of the request has not changed. Without this, schemathesis checks it
    # again, and takes the percent-encoded path for the decoded one.
    case._record_starting_state()


def set_linked(case: Any) -> None:
    """Remove a link that schemathesis infers, which may use a different string as a URL."""
    # As long as nothing has changed, this does not check the request again.
    is_positive = case.meta.generation.mode.is_positive
    linked = case.meta.phase.name == "stateful" and is_positive
    if linked and isinstance(case.body, dict) and "callback" in case.body:
        case.body["callback"] = CLOSED


def in_url(value: Any) -> str:
    """Return a value as people write it in a URL: a number without fraction and exponent."""
    return str(int(value) if isinstance(value, float) else value)


def whole_numbers(value: Any) -> Any:
    """Write integers as callme requires them: JSON Schema accepts 1.0 as an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    if isinstance(value, dict):
        return {name: whole_numbers(one) for name, one in value.items()}
    return value


def tame_query(query: dict[str, Any], path: dict[str, Any]) -> None:
    """Adapt a query string."""
    if is_a("Key", query.get("start_from")):
        name, _, at = accepted(query["start_from"], parse_key, f"a@{FAR}").partition("@")
        query["start_from"] = f"{path.get('task_name', name)}@{at}"
    for name in ("due_from", "due_before"):
        if is_a("Time", query.get(name)):
            query[name] = accepted(in_url(query[name]), parse_now, str(FAR))
    if str(query.get("wait")) in map(str, range(MAX_WAIT_SECONDS + 1)):
        # No task changes, so a long poll would only time out.
        query["wait"] = 0


def add_filter(case: Any) -> None:
    """Select tasks to change: a schema cannot demand at least one of several parameters."""
    changes_many = (case.method, case.path) in (("DELETE", "/task"), ("POST", "/reschedule"))
    # An empty list of labels is not sent.
    if changes_many and not any(case.query.get(name) not in (None, []) for name in FILTERS):
        case.query = {**case.query, "state": "failed"}
    if changes_many and case.method == "POST" and case.query.get("state", "failed") != "failed":
        # The schema cannot demand one parameter for a value of another.
        case.query = {**case.query, "all": True}


def tamed_line(line: str) -> str:
    try:
        body = json.loads(line)
    except ValueError:
        return line
    if isinstance(body, dict):
        tame(body, {})
    return json.dumps(body)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Accept status 200 for a batch with invalid tasks if those are refused."""
    if case.path != "/batch" or not isinstance(failure, AcceptedNegativeData):
        return True
    if case.media_type == "application/x-ndjson":
        # Any text is a batch of lines, each with a result.
        return bool(response.status_code != 200)
    bodies, responses = case.body, response.json()
    return len(responses) != len(bodies) or any(
        (answer["status"] >= 400) is is_a("NewTask", body)
        for answer, body in zip(responses, bodies, strict=True)
    )


def tame(body: dict[str, Any], path: dict[str, Any]) -> None:
    """Adapt a body."""
    if is_a("NewTask", body):
        # The schema does not express that they are required if the URL does not contain them.
        missing = {"task_name": "task", "trigger_at": str(FAR)}
        body.update({name: value for name, value in missing.items() if name not in path | body})
    if is_a("Time", body.get("trigger_at")):
        body["trigger_at"] = future(body["trigger_at"], body)
    for name, schema in (("task_name", "TaskName"), ("trigger_at", "Time")):
        if is_a(schema, body.get(name)) and is_a(schema, path.get(name)):
            body[name] = path[name]
    if body.get("paused") is not None and is_a("Time", body["paused"]):
        body["paused"] = "+30m"
    for name in ("callback", "on_failure", "on_success"):
        if body.get(name) is not None and is_parameter(name, body[name]):
            body[name] = CLOSED
    if "payload" in body and all(
        is_parameter(name, body.get(name)) for name in ("payload", "payload_base64")
    ):
        # Each is valid, but not both.
        del body["payload"]
    if is_parameter("headers", body.get("headers")):
        body["headers"] = accepted(body["headers"], parse_headers, {})


def accepted(value: Any, parse: Callable[[Any], object], instead: Any) -> Any:
    """Return a value that callme accepts: this one, unless it breaks a rule beyond the schema."""
    try:
        parse(value)
    except InvalidValue:
        return instead
    return value


def parse_now(value: object) -> int:
    return parse_trigger(value, time.time())


def future(value: Any, salt: object) -> Any:
    """Return a time that is not due while the test runs, in the form of another.

    Different definitions get different minutes: otherwise most puts would conflict with a task
    of the same key.
    """
    minute = zlib.crc32(repr((value, salt)).encode()) % 1_000_000
    if isinstance(value, (int, float)):
        return type(value)(FAR + 60 * minute)
    if not value[:4].isdigit():
        # A duration, or the present.
        return f"+{60 + minute}m"
    return str(FAR + 60 * minute) if value.isdigit() else rfc3339(1000 * (FAR + 60 * minute))
