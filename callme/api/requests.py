"""Parsing of requests: path, query string, conditional headers and body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from twisted.web.iweb import IRequest

from ..core.parameters import MAX_ERRORS, PARAMETERS
from ..core.task import Reason, State
from ..core.text.json_hints import batch_hint, object_hint, value_hint
from ..core.text.labels import parse_label
from ..core.text.query_hints import LABEL, QueryHints
from ..core.times import (
    MAX_TIMESTAMP,
    MINUTE,
    Key,
    floor_to_minute,
    next_minute,
    parse_key,
    parse_task_name,
    parse_trigger,
)
from ..core.transitions import PutCondition
from ..errors import FieldError, Invalid, InvalidValue, json_type, pointer_token, quoted
from ..server.problem import NDJSON_TYPE, Problem
from . import strict_json

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_ATTEMPT_NUMBER = 999_999_999
DEFAULT_HOURS = 24
MAX_HOURS = 168
"""Maximum number of hours of a forecast: a week."""
MAX_WAIT_SECONDS = 60
"""Maximum value of ``wait``."""
WAIT_LIMIT_SECONDS = 55
"""Maximum time in seconds for which callme delays a response until a task changes.

Many proxies abort a request after 60 s without a response.
"""
FILTERS = ("state", "reason", "host", "prefix", LABEL, "due_from", "due_before")
PAGING = ("start_from", "future_only", "limit", "order", *FILTERS)
"""The query parameters of a list."""
BULK = ("start_from", "limit", "dry_run", *FILTERS)
"""The query parameters of a bulk action."""
DEFAULT_BULK_LIMIT = 1_000
MAX_BULK_LIMIT = 10_000
MAX_SPREAD_MINUTES = 10_080
"""Maximum value of ``spread``, in minutes: a week."""
ORDERS = ("name", "due")
_HINTS = QueryHints([parameter.name for parameter in PARAMETERS])
HOST_PATTERN = "[!-.0-?A-~]{1,260}:[0-9]{1,5}"
"""Regular expression of a host and port, such as ``example.com:443``."""
_HOST = re.compile(HOST_PATTERN)
_JSON_TYPES = (
    b"",
    b"application/json",
    b"application/octet-stream",
    b"application/x-www-form-urlencoded",
    b"text/plain",
)
"""Accepted media types of a JSON body, including defaults of clients: that of forms for
``curl --data``, and that of text for ``fetch``."""
_OTHER_TYPES = {
    b"multipart/form-data": "; send JSON, with curl as --data and not as --form",
    NDJSON_TYPE: "; POST /batch takes one object per line",
}
"""Media types that clients send by mistake, each with advice."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TRUE = ("", "true", "1", "yes")
_FALSE = ("false", "0", "no")
# A line from its first character that is not JSON white space; blank lines do not match.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_NUMBER = re.compile(r"[0-9]{1,9}")


def parse_condition(request: IRequest) -> PutCondition:
    """Return the precondition in the headers of a request (RFC 9110, section 13.1)."""
    match = request.getHeader(b"if-match")
    if match is not None and match.strip() != b"*":
        # callme has no entity tags, so that no tag can match.
        raise Problem(412, "callme has no entity tags: expected If-Match: *")
    none_match = (request.getHeader(b"if-none-match") or b"").strip() == b"*"
    if match is not None and none_match:
        raise Problem(412, "If-Match: * and If-None-Match: * cannot both be met")
    if none_match:
        return PutCondition.MUST_NOT_EXIST
    return PutCondition.NONE if match is None else PutCondition.MUST_EXIST


def check_task_exists_condition(request: IRequest) -> None:
    """Check the precondition of a request that requires existing tasks.

    ``If-Match: *`` is redundant: without a task, the response is 404 (RFC 9110, section 13.2.1).

    :raises Problem: when the precondition cannot be met.
    """
    if parse_condition(request) is PutCondition.MUST_NOT_EXIST:
        raise Problem(412, "If-None-Match: * cannot be met: the request needs a task that exists")


def check_batch_condition(request: IRequest) -> None:
    """Check that a batch has no precondition.

    :raises Problem: when it has a precondition.
    """
    for name in ("If-Match", "If-None-Match"):
        if request.getHeader(name) is not None:
            raise Problem(412, f"{name} applies to one task: send it with the PUT of that task")


def strip_trailing_slash(request: IRequest, path: str) -> str:
    """Return the rest of a path without a trailing slash.

    A percent-encoded slash is part of a name, and is not removed.
    """
    return path[:-1] if request.path.endswith(b"/") and len(path) > 1 else path


def parse_selector(request: IRequest, path: str, ending: str = "") -> Key | str | None:
    """Return the key or the name that a path selects; ``None`` for all tasks.

    :param ending: a suffix of the path that does not count towards the length of the name.
    """
    text = strip_trailing_slash(request, path)
    if not text:
        return None
    try:
        if "@" in text:
            return parse_key(text)
        parse_task_name(text.removesuffix(ending) or text)
        return text
    except InvalidValue as error:
        raise Problem(400, str(error), errors=[FieldError("task", str(error))]) from None


def parse_body(request: IRequest, *, required: bool = True) -> dict[str, object]:
    """Return the JSON object in the body of a request.

    :param required: whether to refuse an empty body instead of returning an empty object.
    :raises Problem: when the body is not a JSON object.
    """
    data = _read(request, _JSON_TYPES)
    if not data.strip():
        if required:
            raise _bad_body("the body is empty: expected a JSON object")
        return {}
    try:
        value = strict_json.decode(data)
    except InvalidValue as error:
        raise _bad_body(object_hint(data, str(error)) or str(error), error.at) from None
    return parse_object(value)


def parse_object(value: object) -> dict[str, object]:
    """Return a JSON value that must be an object.

    :param value: the value, or the ``InvalidValue`` that describes its error.
    :raises Problem: when the value is not an object.
    """
    if isinstance(value, InvalidValue):
        raise _bad_body(str(value), value.at)
    if not isinstance(value, dict):
        raise _bad_body(_not_an_object(value))
    return value


def _not_an_object(value: object) -> str:
    return f"{json_type(value)} is not accepted: expected a JSON object{value_hint(value)}"


def parse_items(request: IRequest) -> Iterator[tuple[object, int]]:
    """Yield each value of a batch, or an ``InvalidValue`` that describes its error, and its length.

    :raises Problem: when the batch as a whole cannot be parsed; the caller must then put no task.
    """
    data = _read(request, (*_JSON_TYPES, NDJSON_TYPE))
    try:
        if is_ndjson(request):
            yield from _lines(data)
        else:
            yield from strict_json.decode_array(data)
    except strict_json.ItemTooLong as error:
        raise Problem(413, str(error)) from None
    except InvalidValue as error:
        raise _bad_body(batch_hint(data, str(error)) or str(error), error.at) from None


def _lines(data: bytes) -> Iterator[tuple[object, int]]:
    number, end = 1, 0
    for match in _LINE.finditer(data):
        # The spaces before its first character count as columns.
        line = data[data.rfind(b"\n", 0, match.start()) + 1 : match.end()]
        if len(line) > strict_json.MAX_ITEM_LENGTH:
            raise strict_json.ItemTooLong
        number += data.count(b"\n", end, match.start())
        end = match.start()
        try:
            value = strict_json.decode(line)
            if isinstance(value, list):
                raise InvalidValue("the body is a list: send an array as application/json")
            if not isinstance(value, dict):
                raise InvalidValue(_not_an_object(value))
            yield value, len(line)
        except InvalidValue as error:
            yield InvalidValue(_in_line(number, str(error)), error.at), len(line)


def _in_line(number: int, detail: str) -> str:
    """Return the error of a body that is one line of a batch.

    :param number: the number of the line, from 1.
    """
    of_body = detail.removeprefix("the body")
    if of_body == detail:
        return f"line {number}: {detail}"
    return f"line {number}{of_body.replace('line 1, column', 'column', 1)}"


def is_ndjson(request: IRequest) -> bool:
    """Return whether the media type of a body is NDJSON, with one JSON text per line."""
    return _content_type(request) == NDJSON_TYPE


def _content_type(request: IRequest) -> bytes:
    media_type: bytes = (request.getHeader(b"content-type") or b"").partition(b";")[0]
    return media_type.strip().lower()


def _read(request: IRequest, accepted: Sequence[bytes]) -> bytes:
    """Return the body of a request, without a byte order mark (RFC 8259, section 8.1).

    :raises Problem: when its media type is not accepted, or it has a content coding.
    """
    encoding = (request.getHeader(b"content-encoding") or b"").strip().lower()
    if encoding not in (b"", b"identity"):
        # The status for an unsupported content coding is 415 (RFC 9110, section 15.5.16).
        value = quoted(encoding.decode("latin-1"))
        detail = f"the Content-Encoding is {value}: expected none, so send the body as it is"
        raise Problem(415, detail, headers={"Accept-Encoding": "identity"})
    if (media_type := _content_type(request)) not in accepted:
        value = quoted(media_type.decode("latin-1"))
        also = f" or {NDJSON_TYPE.decode()}" if NDJSON_TYPE in accepted else ""
        also += _OTHER_TYPES.get(media_type, "")
        raise Problem(415, f"the Content-Type is {value}: expected application/json{also}")
    data: bytes = request.content.read()
    return data.removeprefix(_BYTE_ORDER_MARK)


def _bad_body(detail: str, pointer: str = "") -> Problem:
    # The empty pointer refers to the whole body (RFC 6901, section 5).
    if pointer.startswith("/payload/"):
        # The place inside a payload is omitted, because even names in it may be secrets.
        pointer = "/payload"
    where = f"{pointer.lstrip('/')}: " if pointer else ""
    return Problem(400, where + detail, errors=[FieldError(pointer, detail)])


def parse_query(request: IRequest, known: Iterable[str] = ()) -> dict[str, str]:
    """Return the parameters of a query string, except labels: see :func:`parse_labels`.

    :param known: the accepted names besides ``pretty``.
    :raises Problem: when a parameter is unknown or occurs twice.
    """
    query: dict[str, str] = {}
    if b"?" not in request.uri:
        return query
    for name, value in _parameters(request):
        if name != "pretty" and name not in known:
            raise _bad_query(name, _HINTS.error(name, [*known, "pretty"]))
        if name in query:
            raise _bad_query(name, "is given twice: expected it once")
        if name != LABEL:
            query[name] = value
    parse_flag(query, "pretty")
    return query


def parse_labels(request: IRequest) -> list[str]:
    """Return the values of ``label`` in a query string, where it may be repeated."""
    return [value for name, value in _parameters(request) if name == LABEL]


def _parameters(request: IRequest) -> Iterator[tuple[str, str]]:
    for part in request.uri.partition(b"?")[2].split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            yield _unquoted(name), _unquoted(value)


def _unquoted(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        text = quoted(raw.decode("latin-1"))
        raise Problem(400, f"{text} in the query string is not percent-encoded UTF-8") from None


def _bad_query(name: str, detail: str) -> Problem:
    return Problem(400, f"{quoted(name)} {detail}", errors=[FieldError(ascii(name)[1:-1], detail)])


def parse_flag(query: dict[str, str], name: str) -> bool:
    """Return the value of a flag: false if it is absent, and true if it is a bare name."""
    value = query.get(name, "false").lower()
    if value not in _TRUE + _FALSE:
        raise _bad_value(name, query[name], "true or false")
    return value in _TRUE


def parse_limit(value: str | None) -> int:
    """Return the maximum number of tasks on a page."""
    return _number("limit", value, default=DEFAULT_LIMIT, maximum=MAX_LIMIT)


def parse_bulk_limit(value: str | None) -> int:
    """Return the maximum number of tasks that a bulk action examines."""
    return _number("limit", value, default=DEFAULT_BULK_LIMIT, maximum=MAX_BULK_LIMIT)


def parse_spread(value: str | None, trigger_at: int) -> int:
    """Return the number of minutes that moved tasks are distributed over; 0 by default.

    :param trigger_at: the first of these minutes: seconds since 1970.
    """
    spread = _number("spread", value, default=0, maximum=MAX_SPREAD_MINUTES, unit=" minutes")
    if trigger_at + MINUTE * spread > MAX_TIMESTAMP:
        raise _bad_value("spread", value, "minutes that end before the year 10000")
    return spread


def parse_attempts_from(value: str | None) -> int | None:
    """Return the number of the last attempt on a page of attempts."""
    if value is None:
        return None
    return _number("start_from", value, default=0, maximum=MAX_ATTEMPT_NUMBER)


def parse_wait(value: str | None) -> int:
    """Return the seconds for which a client waits for a task to change; 0 by default."""
    wanted = _number("wait", value, default=0, minimum=0, maximum=MAX_WAIT_SECONDS, unit=" seconds")
    return min(wanted, WAIT_LIMIT_SECONDS)


def parse_hours(value: str | None) -> int:
    """Return the number of hours that a forecast covers."""
    return _number("hours", value, default=DEFAULT_HOURS, maximum=MAX_HOURS)


def _number(
    name: str,
    value: str | None,
    *,
    default: int,
    minimum: int = 1,
    maximum: int,
    unit: str = "",
) -> int:
    if value is None:
        return default
    if not _NUMBER.fullmatch(value) or not minimum <= int(value) <= maximum:
        bounds = f"from {minimum} to {maximum:,}"
        raise _bad_value(name, value, f"an integer {bounds}{unit}")
    return int(value)


def _member(name: str, value: str | None, values: type[E]) -> E | None:
    if value is None:
        return None
    try:
        return values(value)
    except ValueError:
        expected = ", ".join(str(member.value) for member in values)
        raise _bad_value(name, value, f"one of {expected}") from None


def parse_order(value: str | None) -> bool:
    """Return whether a list is ordered by time instead of by name."""
    if value is not None and value not in ORDERS:
        raise _bad_value("order", value, f"one of {', '.join(ORDERS)}")
    return value == "due"


def parse_filters(query: dict[str, str], labels: Iterable[str], now: float) -> dict[str, Any]:
    """Return the filters of :class:`callme.store.listing.selection.Selection` in a query.

    :param labels: the values of ``label``.
    :param now: the server's time: seconds since 1970.
    """
    due_from = _parsed(query, "due_from", lambda value: parse_trigger(value, now))
    if parse_flag(query, "future_only"):
        due_from = max(due_from or 0, floor_to_minute(now) + MINUTE)
    return {
        "state": _member("state", query.get("state"), State),
        "reason": _member("reason", query.get("reason"), Reason),
        "host": _parsed(query, "host", _parse_host),
        "prefix": _parsed(query, "prefix", parse_task_name) or "",
        "labels": [_parsed({LABEL: label}, LABEL, parse_label) for label in labels],
        "due_from": due_from,
        "due_before": _parsed(query, "due_before", lambda value: parse_trigger(value, now)),
    }


def describe_filters(query: Mapping[str, str], labels: Iterable[str]) -> str:
    """Return the filters of a query as text.

    :param labels: the values of ``label``.
    :raises Problem: when there is no filter, so that no request changes all tasks by accident.
    """
    given = [(name, query[name]) for name in FILTERS if name in query]
    given += [(LABEL, label) for label in labels]
    if not given:
        raise Problem(
            400,
            "the request has no filter: "
            f"expected at least one of {', '.join(FILTERS)} in the query string",
        )
    return " ".join(f"{name}={quoted(value)}" for name, value in given)


def check_movable_state(filters: Mapping[str, Any], *, include_all_states: bool) -> None:
    """Check that a reschedule can move tasks in the state that its filters select.

    :raises Problem: when it moves only failed tasks, and the filters select a different state.
    """
    if not include_all_states and filters["state"] not in (None, State.FAILED):
        state = quoted(filters["state"].value)
        detail = f"{state} is not accepted: add all=true to move tasks that have not failed"
        raise _wrong_value("state", InvalidValue(detail))


def _parsed(query: dict[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    if name not in query:
        return None
    try:
        return parse(query[name])
    except InvalidValue as error:
        raise _wrong_value(name, error) from None


def _bad_value(name: str, value: str | None, expected: str) -> Problem:
    """Return the problem of a parameter of the query string with a wrong value."""
    return _wrong_value(name, InvalidValue(f"{quoted(value)} is not accepted: expected {expected}"))


def _wrong_value(name: str, error: InvalidValue) -> Problem:
    return Problem(400, f"{name}: {error}", errors=[FieldError(name, str(error))])


def _parse_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise InvalidValue(
            f"{quoted(value)} is not a host and port: expected one such as example.com:443"
        )
    return value.lower()


def parse_start_from(value: str | None, task_name: str | None) -> Key | None:
    """Return the first key of a page.

    :param task_name: the name that the key must have, if any.
    """
    if value is None:
        return None
    try:
        key = parse_key(value)
    except InvalidValue as error:
        raise _wrong_value("start_from", error) from None
    if task_name is not None and key.row_number is None and key.task_name != task_name:
        raise _bad_value("start_from", value, f"a key of {quoted(task_name)}")
    return key


def parse_new_time(
    body: dict[str, object], now: float, warnings: list[FieldError] | None = None
) -> int:
    """Return the new minute in the body of a reschedule; the next minute by default.

    :param warnings: receives warnings about a valid time that may not be intended.
    """
    noted: list[str] = []
    unknown = [name for name in body if name != "trigger_at"]
    if unknown:
        raise Invalid(
            FieldError(pointer_token(name), "is not a parameter: expected trigger_at")
            for name in unknown[:MAX_ERRORS]
        )
    if "trigger_at" not in body:
        return next_minute(now)
    try:
        trigger_at = parse_trigger(body["trigger_at"], now, noted.append)
    except InvalidValue as error:
        raise Invalid([FieldError("/trigger_at", str(error))]) from None
    if warnings is not None:
        warnings += [FieldError("/trigger_at", text) for text in noted]
    return trigger_at
