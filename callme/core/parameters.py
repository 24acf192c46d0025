"""The table of task parameters, and the validation of a request's body by it.

:data:`PARAMETERS` is the one list of parameters. Validation, the columns of a task, JSON, the
OpenAPI document, the task's web page and the table in ``docs/api.md`` come from it. A new
parameter is one entry here, one attribute of :class:`~callme.core.task.Definition` and one
migration of each database.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import attrs
from attrs import frozen

from ..errors import (
    FieldError,
    Invalid,
    InvalidMembers,
    InvalidValue,
    json_type,
    pointer_token,
    quoted,
)
from ..security.address_policy import AddressPolicy
from .callback_url import CALLBACK_SCHEMA, MAX_URL_LENGTH, parse_callback
from .columns import (
    BASE64,
    JSON_LIST,
    JSON_LIST_OR_EMPTY,
    JSON_OBJECT,
    LONG_TEXT,
    METHOD,
    MINUTE,
    NAME,
    OPTIONAL_URL,
    TEXT,
    URL,
    Column,
    Convert,
    integer_column,
    integer_list_column,
)
from .headers import (
    FRAMING_HEADERS,
    HEADERS_SCHEMA,
    MASK,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    TOKEN,
    is_token,
    parse_headers,
    redact_all,
    redact_secrets,
)
from .json_schema import (
    Schema,
    any_case,
    integer,
    nullable,
    one_or_many,
    ref,
    string,
    without_bounds,
)
from .put_warnings import may_need_warning, warnings_about
from .task import Definition
from .text.compact_json import encode_compact
from .text.integers import parse_integer
from .text.labels import LABELS_SCHEMA, MAX_LABELS, MAX_VALUE_LENGTH, parse_labels
from .text.nearest import Nearest
from .times import MAX_NAME_LENGTH, NO_RECURRING, name_with_at, parse_task_name, parse_trigger

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_RETRY = 1_000
MAX_MINUTES = 525_600
MAX_TIMEOUT_SECONDS = 1_800
MAX_METHOD_LENGTH = 32
MIN_STATUS, MAX_STATUS = 200, 599
MAX_LIST_LENGTH = 100
MAX_ERRORS = 20
"""Maximum number of errors reported for one body."""
FORBIDDEN_METHODS = ("CONNECT", "TRACE")
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_STATUS = re.compile(r"[0-9]{3}")
_DEFAULT_NETWORKS = AddressPolicy()
_FRAMING = ", ".join(f"`{name.title()}`" for name in sorted(FRAMING_HEADERS))


class Context(NamedTuple):
    """Inputs of a parser besides the value.

    :ivar now: the server's time, from which relative times count: seconds since 1970.
    :ivar networks: the policy about the addresses that callbacks may be sent to.
    :ivar warn: receives a sentence about a time that is valid but may not be intended.
    """

    now: float
    networks: AddressPolicy
    warn: Callable[[str], None]


Parser = Callable[[object, Context], Any]


@frozen(kw_only=True)
class Parameter:
    """Parameter of a task.

    :ivar name: the name of the JSON member, of the column, and of the attribute of ``Definition``.
    :ivar parse: returns the attribute's value for a JSON value, or raises ``InvalidValue``.
    :ivar schema: JSON Schema of the value in a request.
    :ivar type_name: the JSON type in words, for the documentation.
    :ivar documentation: the meaning and the bounds, in Markdown.
    :ivar label: the term on web pages.
    :ivar has_own_place: whether a task's page displays the value outside the list of parameters.
    :ivar to_text: returns the text of the attribute's value for web pages.
    :ivar is_code: whether the page displays the value in a monospaced font.
    :ivar column: the column in both databases.
    :ivar to_json: returns the attribute's value as JSON.
    :ivar redact: like ``to_json``, but without secrets, for lists and errors.
    :ivar is_listed: whether lists of tasks include the parameter.
    :ivar response_schema: JSON Schema of the value in a response.
    """

    name: str
    parse: Parser
    schema: Schema
    type_name: str
    documentation: str
    label: str
    has_own_place: bool = False
    to_text: Callable[[Any], str] = str
    is_code: bool = False
    column: Column = TEXT
    to_json: Convert | None = None
    redact: Convert | None = None
    is_listed: bool = True
    response_schema: Schema = attrs.field()

    @response_schema.default
    def _default_response_schema(self) -> Schema:
        return without_bounds(self.schema)

    @property
    def is_required(self) -> bool:
        """Return whether the parameter has no default."""
        return self.name not in Definition._field_defaults

    @property
    def default_value(self) -> Any:
        """Return the default of the attribute; the parameter must not be required."""
        return getattr(_DEFAULTS, self.name)

    @property
    def default(self) -> Any:
        """Return the default as JSON; the parameter must not be required."""
        value = self.default_value
        return value if self.to_json is None else self.to_json(value)


_DEFAULTS = Definition(task_name="", trigger_at=0, callback="")
"""A definition in which every optional parameter has its default."""


def _parse_method(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_METHOD_LENGTH or not is_token(value):
        raise InvalidValue(
            f"{quoted(value)} is not an HTTP method, such as POST (a token of RFC 9110)"
        )
    method = value.upper()
    if method in FORBIDDEN_METHODS:
        raise InvalidValue(f"{quoted(value)} is not accepted: callme makes no {method} requests")
    return method


def _parse_payload(value: object) -> str:
    if isinstance(value, (dict, list)):
        value = encode_compact(value)
    if not isinstance(value, str):
        # The error omits the payload, which may contain secrets.
        raise InvalidValue(
            f"{json_type(value)} is not accepted: expected a string, an object or a list"
        )
    _check_payload_size(len(value.encode()))
    return value


def _parse_base64(value: object) -> str:
    """Return the canonical form of a base64 text (RFC 4648, section 4)."""
    if not isinstance(value, str):
        raise InvalidValue(f"{json_type(value)} is not accepted: expected a string of base64")
    if not _BASE64.fullmatch(value):
        # The error omits the text, which may contain secrets.
        raise InvalidValue(
            "the text is not base64: expected A-Z, a-z, 0-9, + and /, padded with = (RFC 4648)"
        )
    data = b64decode(value)
    _check_payload_size(len(data))
    return b64encode(data).decode("ascii")


def _check_payload_size(size: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidValue(f"a payload of {size:,} bytes: expected at most {MAX_PAYLOAD_BYTES:,}")


def _parse_status(value: object) -> int | str:
    if isinstance(value, str):
        if value.lower() in STATUS_CLASSES:
            return value.lower()
        if _STATUS.fullmatch(value):
            value = int(value)
    if type(value) is int and MIN_STATUS <= value <= MAX_STATUS:
        return value
    raise InvalidValue(f"{quoted(value)} is not accepted: {_status_advice(value)}")


def _status_advice(value: object) -> str:
    """Return advice for a value that is not an accepted status."""
    if isinstance(value, str) and "," in value:
        return "expected a list, such as [200, 204]"
    if value == "1xx" or (type(value) is int and 100 <= value < MIN_STATUS):
        return f"a 1xx is never a final response; expected a status from {MIN_STATUS} to 599"
    return f'expected a status from {MIN_STATUS} to {MAX_STATUS} or a class like "2xx"'


def _parse_statuses(value: object, minimum: int = 1) -> tuple[int | str, ...]:
    statuses = _parse_each(value, _parse_status, minimum)
    # The statuses are sorted and deduplicated, so that equal sets make equal definitions.
    return tuple(sorted(dict.fromkeys(statuses), key=str))


def _parse_retry_delay(value: object) -> tuple[int, ...]:
    delays = list(_parse_each(value, lambda item: parse_integer(item, 0, MAX_MINUTES, " minutes")))
    while len(delays) > 1 and delays[-1] == delays[-2]:
        delays.pop()
    return tuple(delays)


def _parse_no_retry_statuses(value: object) -> tuple[int | str, ...]:
    return _parse_statuses(value, minimum=0)


def _parse_each(value: object, parse: Callable[[object], Any], minimum: int = 1) -> tuple[Any, ...]:
    """Return the parsed values of a list, or of a single value."""
    if not isinstance(value, list):
        return (parse(value),)
    if not minimum <= len(value) <= MAX_LIST_LENGTH:
        bounds = f"{minimum} to {MAX_LIST_LENGTH}"
        raise InvalidValue(f"a list with {len(value)} values: expected {bounds} values")
    parsed, errors = [], []
    for index, item in enumerate(value):
        try:
            parsed.append(parse(item))
        except InvalidValue as error:
            errors.append(InvalidValue(str(error), f"/{index}"))
    if errors:
        raise InvalidMembers(errors)
    return tuple(parsed)


def _plain(parse: Callable[[object], Any]) -> Parser:
    """Return a parser that ignores the context."""
    return lambda value, _: parse(value)


def _bounded(minimum: int, maximum: int, unit: str = "") -> Parser:
    """Return a parser of an integer within bounds."""
    return lambda value, _: parse_integer(value, minimum, maximum, unit)


def _parse_trigger(value: object, context: Context) -> int:
    return parse_trigger(value, context.now, context.warn)


def _parse_url(value: object, context: Context) -> str:
    return parse_callback(value, context.networks)


def _parse_optional_url(value: object, context: Context) -> str | None:
    return None if value is None else _parse_url(value, context)


def _one_or_all(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _join(statuses: Iterable[int | str]) -> str:
    return ", ".join(map(str, statuses))


_STATUS_SCHEMA = {
    "anyOf": [
        integer(MIN_STATUS, MAX_STATUS),
        string(pattern="^[2-5](?:[0-9]{2}|[Xx]{2})$", examples=["2xx"]),
    ]
}
_ANY_STATUS_SCHEMA = {"anyOf": [{"type": "integer"}, string()]}

PARAMETERS = (
    Parameter(
        name="task_name",
        parse=_plain(parse_task_name),
        schema=ref("TaskName"),
        type_name="string",
        documentation=f"Name of the task: 1 to {MAX_NAME_LENGTH} characters of Unicode without "
        "`@`, `/` and control characters.",
        label="Name",
        has_own_place=True,
        column=NAME,
    ),
    Parameter(
        name="trigger_at",
        parse=_parse_trigger,
        schema=ref("Time"),
        response_schema=string("Minute of the call: a Unix timestamp.", pattern="^[0-9]+$"),
        type_name="string or number",
        documentation="Minute of the call: one of the forms under *Times*.",
        label="Time",
        has_own_place=True,
        column=MINUTE,
        to_json=str,
    ),
    Parameter(
        name="callback",
        parse=_parse_url,
        schema=CALLBACK_SCHEMA,
        type_name="string",
        documentation="URL to call: absolute, `http` or `https`, ASCII, without user info, at most "
        f"{MAX_URL_LENGTH:,} characters. An IPv4 address is four decimal numbers; an address that "
        "callme may not call is refused.",
        label="Callback",
        is_code=True,
        column=URL,
    ),
    Parameter(
        name="callback_method",
        parse=_plain(_parse_method),
        schema=string(maxLength=MAX_METHOD_LENGTH, pattern=f"^{TOKEN.pattern}$")
        | {"not": {"pattern": f"^(?:{any_case(FORBIDDEN_METHODS)})$"}},
        type_name="string",
        documentation=f"Any method except {' and '.join(f'`{m}`' for m in FORBIDDEN_METHODS)}; "
        "it is sent in upper case.",
        label="Method",
        is_code=True,
        column=METHOD,
    ),
    Parameter(
        name="payload",
        parse=_plain(_parse_payload),
        schema={
            "anyOf": [
                string(maxLength=MAX_PAYLOAD_BYTES),
                {"type": "object"},
                {"type": "array", "items": {}},
            ],
            "examples": ["plain text", {"to": "ada", "items": [1, 2]}],
        },
        response_schema=string("Body of the request."),
        type_name="string, object or list",
        documentation=f"Body of the request: at most {MAX_PAYLOAD_BYTES:,} bytes of UTF-8. An "
        "object or a list is sent as compact JSON.",
        label="Payload",
        has_own_place=True,
        column=LONG_TEXT,
        is_listed=False,
    ),
    Parameter(
        name="payload_base64",
        parse=_plain(_parse_base64),
        schema=string(
            maxLength=-(-MAX_PAYLOAD_BYTES // 3) * 4,
            pattern=f"^{_BASE64.pattern}$",
            contentEncoding="base64",
            examples=["AP8BgA=="],
        ),
        type_name="string",
        documentation="Instead of `payload`: bytes, in base64 (RFC 4648, section 4).",
        label="Payload in base64",
        has_own_place=True,
        column=BASE64,
        is_listed=False,
    ),
    Parameter(
        name="headers",
        parse=_plain(parse_headers),
        schema=HEADERS_SCHEMA,
        type_name="object of strings",
        documentation=f"Headers of the request: at most {MAX_HEADERS}, with {MAX_HEADER_BYTES:,} "
        f"bytes in all. callme rejects {_FRAMING}, and the headers that it sends itself (a `_` "
        f'counts as a `-`). Responses replace a value with `"{MASK}"` if the name of the header '
        "looks secret; lists and errors replace all values.",
        label="Headers",
        has_own_place=True,
        column=JSON_OBJECT,
        to_json=redact_secrets,
        redact=redact_all,
    ),
    Parameter(
        name="expected_http_status",
        parse=_plain(_parse_statuses),
        schema=one_or_many(_STATUS_SCHEMA, MAX_LIST_LENGTH),
        response_schema=one_or_many(_ANY_STATUS_SCHEMA, MAX_LIST_LENGTH),
        type_name="integer, string or list",
        documentation='Statuses that count as success: `204`, `"2xx"`, `["2xx", 404]`.',
        label="Expected status",
        to_text=_join,
        column=JSON_LIST,
        to_json=_one_or_all,
    ),
    Parameter(
        name="no_retry_http_status",
        parse=_plain(_parse_no_retry_statuses),
        schema=one_or_many(_STATUS_SCHEMA, MAX_LIST_LENGTH, minimum=0),
        response_schema=one_or_many(_ANY_STATUS_SCHEMA, MAX_LIST_LENGTH, minimum=0),
        type_name="integer, string or list",
        documentation="Statuses after which no further attempt is made, unless they count as "
        'success: `410`, `[410, "4xx"]`.',
        label="Not retried after",
        to_text=_join,
        column=JSON_LIST_OR_EMPTY,
        to_json=_one_or_all,
    ),
    Parameter(
        name="retry",
        parse=_bounded(0, MAX_RETRY),
        schema=integer(0, MAX_RETRY),
        type_name="integer",
        documentation=f"Attempts after the first one: 0 to {MAX_RETRY:,}.",
        label="Retries",
        column=integer_column(0, MAX_RETRY),
    ),
    Parameter(
        name="retry_delay",
        parse=_plain(_parse_retry_delay),
        schema=one_or_many(integer(0, MAX_MINUTES), MAX_LIST_LENGTH),
        type_name="integer or list",
        documentation="Minutes between the end of an attempt and the start of the next one, "
        f"rounded to the nearest whole minute, 0 to {MAX_MINUTES:,}; in a list, the last "
        "delay repeats: `[1, 5, 30]`. With 0, the next attempt follows at once; from the eleventh "
        "attempt on, it waits 1 s, then 2 s, and so on up to a minute.",
        label="Retry delay",
        to_text=lambda delays: f"{', then '.join(map(str, delays))} min",
        column=integer_list_column(0, MAX_MINUTES),
        to_json=_one_or_all,
    ),
    Parameter(
        name="max_delay",
        parse=_bounded(1, MAX_MINUTES, " minutes"),
        schema=integer(1, MAX_MINUTES),
        type_name="integer",
        documentation="Every request starts less than this many minutes after `trigger_at`: 1 to "
        f"{MAX_MINUTES:,}.",
        label="Max delay",
        to_text=lambda minutes: f"{minutes:,} min",
        column=integer_column(1, MAX_MINUTES),
    ),
    Parameter(
        name="timeout",
        parse=_bounded(1, MAX_TIMEOUT_SECONDS, " seconds"),
        schema=integer(1, MAX_TIMEOUT_SECONDS),
        type_name="integer",
        documentation="Seconds for the whole call, from connecting to the last byte: 1 to "
        f"{MAX_TIMEOUT_SECONDS:,}.",
        label="Timeout",
        to_text=lambda seconds: f"{seconds:,} s",
        column=integer_column(1, MAX_TIMEOUT_SECONDS),
    ),
    *(
        Parameter(
            name=name,
            parse=_parse_optional_url,
            schema=nullable(CALLBACK_SCHEMA),
            type_name="string or null",
            documentation=f"URL to notify with a `POST` when the task has {state}{default}; the "
            "rules of `callback` apply to it.",
            label=label,
            is_code=True,
            column=OPTIONAL_URL,
            # Notifications are stored with an empty URL: see NOT_NOTIFIED.
            to_json=lambda url: url or None,
        )
        for name, state, default, label in (
            ("on_failure", "failed", ", instead of the daemon's `--on-failure`", "On failure"),
            ("on_success", "succeeded", "", "On success"),
        )
    ),
    Parameter(
        name="labels",
        parse=_plain(parse_labels),
        schema=LABELS_SCHEMA,
        type_name="object of strings",
        documentation=f"Values of your own that lists filter by: at most {MAX_LABELS}. A key has "
        "1 to 64 characters of `a-z`, `0-9`, `_`, `.` and `-`; a value has at most "
        f"{MAX_VALUE_LENGTH} characters, none of them a control character. They are not sent with "
        "the request.",
        label="Labels",
        to_text=lambda labels: ", ".join(f"{key}: {value}" for key, value in labels.items()),
        column=JSON_OBJECT,
    ),
)
"""Every parameter of a task, in the order of JSON and of the columns."""
_PARSERS = {parameter.name: parameter.parse for parameter in PARAMETERS}
_ALIASES = {
    **dict.fromkeys(("url", "uri", "endpoint", "target", "webhook"), "callback"),
    **dict.fromkeys(("method", "http_method", "verb"), "callback_method"),
    **dict.fromkeys(("body", "data", "json", "content"), "payload"),
    **dict.fromkeys(("at", "when", "time", "delay", "run_at", "schedule"), "trigger_at"),
    **dict.fromkeys(("status", "expected_status"), "expected_http_status"),
    **dict.fromkeys(("name", "id"), "task_name"),
}
"""Names of parameters in other schedulers, each with its name in callme."""
_ADVICE = {
    **dict.fromkeys(
        ("cron", "cron_expression", "every", "interval", "recurring", "repeat", "rrule"),
        NO_RECURRING,
    ),
    **dict.fromkeys(
        ("timezone", "time_zone", "tz", "zone"),
        "trigger_at names the zone, as in 2028-11-26T09:00[Europe/Berlin]",
    ),
}
"""Names of parameters in other schedulers that callme does not have, each with advice."""
_NEAREST = Nearest([*_PARSERS, *_ALIASES])
_REQUIRED = {parameter.name: parameter for parameter in PARAMETERS if parameter.is_required}
_OPTIONAL = {parameter.name for parameter in PARAMETERS if not parameter.is_required}
_PLACES = {
    "task_name": ", here or in the URL of a PUT: /task/<task_name>",
    "trigger_at": ", here or in the URL of a PUT: /task/<task_name>@<trigger_at>",
    "callback": ": the URL to call, such as http://example.com/run-it",
}


def parse_definition(
    body: Mapping[str, object],
    now: float,
    *,
    task_name: str | None = None,
    trigger_at: str | None = None,
    networks: AddressPolicy = _DEFAULT_NETWORKS,
    warnings: list[FieldError] | None = None,
) -> Definition:
    """Return the definition in the body and the URL of a request.

    :param body: the decoded JSON object.
    :param now: the server's time, from which relative times count: seconds since 1970.
    :param task_name: the name in the URL, if any.
    :param trigger_at: the time in the URL, if any.
    :param networks: the policy about the addresses that callbacks may be sent to.
    :param warnings: receives warnings about valid values that may not be intended.
    :raises Invalid: with an error for every field that is unknown, missing, out of bounds, of the
        wrong type, or different from the URL.
    """
    time_warnings: list[str] = []
    context = Context(now, networks, time_warnings.append)
    errors: list[FieldError] = []
    from_url = _parse_url_parts(task_name, trigger_at, context, errors)
    values = dict(from_url)
    for name, value in body.items():
        if len(errors) >= MAX_ERRORS:
            break
        try:
            parse = _PARSERS.get(name) or _refuse_unknown(name, value)
            values[name] = parse(value, context)
        except InvalidValue as error:
            errors += _located(name, value, error)
        else:
            if name in from_url and values[name] != from_url[name]:
                detail = (
                    f"{quoted(value)} and the URL's {quoted(from_url[name])} disagree: "
                    "expected the same"
                )
                errors.append(FieldError(f"/{name}", detail))
    if "payload_base64" in body and "payload" in body:
        errors.append(
            FieldError("/payload_base64", "is given beside payload: expected one of the two")
        )
    if not _REQUIRED.keys() <= values.keys():
        errors += _missing(values, errors)
    if errors:
        raise Invalid(errors[:MAX_ERRORS])
    definition = Definition(**values)
    if warnings is not None and (time_warnings or may_need_warning(definition, now)):
        warnings += warnings_about(definition, body, now, time_warnings)
    return definition


def _located(name: str, value: object, error: InvalidValue) -> Iterable[FieldError]:
    """Return the errors in the value of a member, each with its JSON Pointer."""
    if value is None and name in _OPTIONAL:
        error = InvalidValue(f"{error}; leave it out for the default", error.at)
    return error.located(pointer_token(name))


def _parse_url_parts(
    task_name: str | None, trigger_at: str | None, context: Context, errors: list[FieldError]
) -> dict[str, Any]:
    """Return the values of the parameters in the URL; add their errors to ``errors``."""
    values: dict[str, Any] = {}
    if task_name is None and trigger_at is None:
        return values
    for name, text in (("task_name", task_name), ("trigger_at", trigger_at)):
        if text is not None:
            try:
                values[name] = _PARSERS[name](text, context)
            except InvalidValue as error:
                advice = name_with_at(text) if name == "trigger_at" else ""
                errors.append(FieldError(name, advice or str(error)))
    return values


def _missing(values: Mapping[str, Any], errors: Iterable[FieldError]) -> list[FieldError]:
    """Return an error for each required parameter that has neither a value nor an error."""
    reported = {error.pointer.lstrip("/") for error in errors}
    return [
        FieldError(f"/{name}", "is required" + _PLACES.get(name, ""))
        for name in _REQUIRED
        if name not in values and name not in reported
    ]


def _refuse_unknown(name: str, value: object) -> NoReturn:
    raise InvalidValue(f"{quoted(name)} is not a parameter: {_advice(name, value)}")


def _advice(name: str, value: object) -> str:
    """Return the way out for a member that is not a parameter."""
    if advice := _ADVICE.get(name.lower()):
        return advice
    if isinstance(value, dict) and (nested := next(filter(_PARSERS.get, value), None)):
        return f"put its members, such as {nested}, in its place"
    nearest = _NEAREST.find(name) or ""
    nearest = _ALIASES.get(name.lower()) or _ALIASES.get(nearest, nearest)
    advice = f"did you mean {nearest}? Expected" if nearest else "expected"
    return f"{advice} one of {', '.join(sorted(_PARSERS))}"
