"""What a request says: its path, query string, headers and body, each checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.web.iweb import IRequest

from ..core.parameters import MAX_ERRORS
from ..core.task import State
from ..core.times import Key, next_minute, parse_key, parse_task_name, parse_trigger
from ..errors import FieldError, Invalid, InvalidValue, json_type, pointer_token, quoted
from ..server.problem import NDJSON_TYPE, Problem
from . import strict_json

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
DEFAULT_HOURS = 24
MAX_HOURS = 168
"""How far ahead a forecast looks: a week."""
MAX_WAIT = 60
"""Seconds for which a client may wait for a task to change."""
PAGING = ("start_from", "future_only", "limit", "state")
"""The query parameters of a list."""
_READABLE_TYPES = (b"", b"application/json", b"application/x-www-form-urlencoded")
"""What a JSON body may call itself: curl says the last one unless it is told otherwise."""
# From a line's first character that is no white space of JSON's: blank lines are passed over.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_NUMBER = re.compile(r"[0-9]{1,9}")


@frozen
class Condition:
    """What ``If-Match`` and ``If-None-Match`` ask (RFC 9110, section 13.1)."""

    must_exist: bool
    must_not_exist: bool


def parse_condition(request: IRequest) -> Condition:
    """Return what the conditional headers of a request ask."""
    match = request.getHeader(b"if-match")
    if match is not None and match.strip() != b"*":
        # callme gives out no entity tags, so no tag can match.
        raise Problem(412, "If-Match: only * is known here")
    none_match = (request.getHeader(b"if-none-match") or b"").strip() == b"*"
    if match is not None and none_match:
        raise Problem(412, "If-Match: * and If-None-Match: * cannot both be met")
    return Condition(match is not None, none_match)


def strip_trailing_slash(request: IRequest, path: str) -> str:
    """Return the rest of a path without its trailing slash, which makes no difference.

    A slash that was percent-encoded is no such slash, but part of a name.
    """
    return path[:-1] if request.path.endswith(b"/") and len(path) > 1 else path


def parse_selector(request: IRequest, path: str, ending: str = "") -> Key | str | None:
    """Return the key or the name that a path means; ``None`` for all tasks.

    :param ending: what may follow a name, which may be of full length all the same.
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
        raise Problem(400, str(error), [FieldError("task", str(error))]) from None


def parse_body(request: IRequest, *, required: bool = True) -> dict[str, object]:
    """Return the JSON object that a request brings."""
    _check_type(request, _READABLE_TYPES)
    data = request.content.read()
    if not data.strip():
        if required:
            raise _bad_body("the body is empty: expected a JSON object")
        return {}
    try:
        value = strict_json.decode(data)
    except InvalidValue as error:
        raise _bad_body(str(error)) from None
    return parse_object(value)


def parse_object(value: object) -> dict[str, object]:
    """Return a JSON value that must be an object."""
    if isinstance(value, InvalidValue):
        raise _bad_body(str(value))
    if not isinstance(value, dict):
        raise _bad_body(f"{json_type(value)} is not accepted: expected a JSON object")
    return value


def parse_items(request: IRequest) -> Iterator[tuple[object, int]]:
    """Yield each value of a batch, or the ``InvalidValue`` that is wrong with it, and its length.

    :raises Problem: when the batch as a whole cannot be read; nothing of it is to be done then.
    """
    _check_type(request, (*_READABLE_TYPES, NDJSON_TYPE))
    data = request.content.read()
    try:
        if is_ndjson(request):
            yield from _lines(data)
        else:
            yield from strict_json.decode_array(data)
    except strict_json.ItemTooLong as error:
        raise Problem(413, str(error)) from None
    except InvalidValue as error:
        raise _bad_body(str(error)) from None


def _lines(data: bytes) -> Iterator[tuple[object, int]]:
    for match in _LINE.finditer(data):
        line = match[0]
        if len(line) > strict_json.MAX_ITEM_LENGTH:
            raise strict_json.ItemTooLong
        try:
            yield strict_json.decode(line), len(line)
        except InvalidValue as error:
            yield error, len(line)


def is_ndjson(request: IRequest) -> bool:
    """Whether a body says that it is a JSON text a line."""
    return _content_type(request) == NDJSON_TYPE


def _content_type(request: IRequest) -> bytes:
    kind: bytes = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    return kind


def _check_type(request: IRequest, accepted: Sequence[bytes]) -> None:
    if (kind := _content_type(request)) not in accepted:
        said = quoted(kind.decode("latin-1"))
        raise Problem(415, f"Content-Type {said}: expected application/json")


def _bad_body(detail: str) -> Problem:
    # The empty pointer means the whole of the body (RFC 6901, section 5).
    return Problem(400, detail, [FieldError("", detail)])


def parse_query(request: IRequest, known: Iterable[str] = ()) -> dict[str, str]:
    """Return the parameters of a query string; each may be given once."""
    query: dict[str, str] = {}
    for part in request.uri.partition(b"?")[2].split(b"&"):
        if not part:
            continue
        raw_name, _, raw_value = part.replace(b"+", b" ").partition(b"=")
        name, value = _unquoted(raw_name), _unquoted(raw_value)
        if name != "pretty" and name not in known:
            expected = ", ".join([*known, "pretty"])
            raise _bad_query(name, f"is not a parameter here: expected {expected}")
        if name in query:
            raise _bad_query(name, "is given twice")
        query[name] = value
    parse_flag(query, "pretty")
    return query


def _unquoted(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, f"{quoted(raw)[1:]} in the query string is not UTF-8") from None


def _bad_query(name: str, detail: str) -> Problem:
    return Problem(400, f"{quoted(name)} {detail}", [FieldError(ascii(name)[1:-1], detail)])


def parse_flag(query: dict[str, str], name: str) -> bool:
    """Return a flag: absent is false, its bare name is true."""
    value = query.get(name, "false")
    if value not in ("", "true", "false"):
        raise _bad_query(name, f"is {quoted(value)}: expected true or false")
    return value != "false"


def parse_limit(value: str | None) -> int:
    """Return how many tasks a page may hold."""
    return _number("limit", value, DEFAULT_LIMIT, MAX_LIMIT)


def parse_wait(value: str | None) -> int:
    """Return for how many seconds a client will wait for a task to change."""
    if value is None:
        return 0
    if not _NUMBER.fullmatch(value) or int(value) > MAX_WAIT:
        raise _bad_query("wait", f"is {quoted(value)}: expected seconds, an integer to {MAX_WAIT}")
    return int(value)


def parse_hours(value: str | None) -> int:
    """Return how many hours a forecast is for."""
    return _number("hours", value, DEFAULT_HOURS, MAX_HOURS)


def _number(name: str, value: str | None, default: int, most: int) -> int:
    if value is None:
        return default
    if not _NUMBER.fullmatch(value) or not 1 <= int(value) <= most:
        raise _bad_query(name, f"is {quoted(value)}: expected an integer from 1 to {most:,}")
    return int(value)


def parse_state(value: str | None) -> State | None:
    """Return the state that a list is to show; ``None`` for all."""
    if value is None:
        return None
    try:
        return State(value)
    except ValueError:
        states = ", ".join(state.value for state in State)
        raise _bad_query("state", f"is {quoted(value)}: expected one of {states}") from None


def parse_start_from(value: str | None, task_name: str | None) -> Key | None:
    """Return the key that a page begins with; it must be one of the name asked for."""
    if value is None:
        return None
    try:
        key = parse_key(value)
    except InvalidValue as error:
        raise _bad_query("start_from", str(error)) from None
    if task_name is not None and key.task_name != task_name:
        raise _bad_query("start_from", f"is a key of another task than {quoted(task_name)}")
    return key


def parse_new_time(body: dict[str, object], now: float) -> int:
    """Return the minute that a reschedule asks for: the next one unless it says."""
    unknown = [name for name in body if name != "trigger_at"]
    if unknown:
        raise Invalid(
            FieldError(pointer_token(name), "is not a parameter: expected trigger_at")
            for name in unknown[:MAX_ERRORS]
        )
    if "trigger_at" not in body:
        return next_minute(now)
    try:
        return parse_trigger(body["trigger_at"], now)
    except InvalidValue as error:
        raise Invalid([FieldError("/trigger_at", str(error))]) from None
