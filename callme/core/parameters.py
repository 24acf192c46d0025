"""From what a person sent to a :class:`Definition`, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import FieldError, Invalid, InvalidValue, kind_of, pointer_token, quoted
from ..security.address_policy import AddressPolicy
from .callback_url import parse_callback
from .headers import is_token, parse_headers
from .task import Definition
from .times import check_name, parse_trigger

MAX_PAYLOAD = 256 * 1024
MAX_RETRY = 1_000
MAX_MINUTES = 525_600
MAX_TIMEOUT = 1_800
MAX_METHOD = 32
STATUSES = (100, 599)
"""The least and the greatest status that an endpoint may be expected to answer with."""
MAX_ERRORS = 20
"""Things wrong with one body that are told; who has more will ask again."""
FORBIDDEN_METHODS = ("CONNECT", "TRACE")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
MAX_LIST = 100
_TOLD = ("on_failure", "on_success")
_DEFAULT_NETWORKS = AddressPolicy()


def parse_definition(
    body: Mapping[str, object],
    now: float,
    task_name: str | None = None,
    trigger_at: str | None = None,
    networks: AddressPolicy = _DEFAULT_NETWORKS,
) -> Definition:
    """Return the definition that a request's body, and its URL, describe.

    :param body: the decoded JSON object.
    :param now: the server's time, which relative times count from.
    :param task_name: the name in the URL, if one stands there.
    :param trigger_at: the time in the URL, if one stands there.
    :param networks: where callbacks may go.
    :raises Invalid: with every field that is unknown, missing, out of bounds, of
        the wrong type, or at odds with the URL.
    """
    errors: list[FieldError] = []
    fields: dict[str, Any] = {}
    for name, in_url in (("task_name", task_name), ("trigger_at", trigger_at)):
        if in_url is not None:
            _parse_field(name, in_url, now, networks, fields, errors, in_url=True)
    for name, value in body.items():
        if len(errors) >= MAX_ERRORS:
            break
        in_url_too = fields.get(name)
        _parse_field(name, value, now, networks, fields, errors)
        if in_url_too is not None and fields[name] != in_url_too:
            errors.append(
                FieldError(
                    f"/{name}", f"{quoted(value)} and the URL's {quoted(in_url_too)} disagree"
                )
            )
    for name in ("task_name", "trigger_at", "callback"):
        if name not in fields and not any(e.pointer.lstrip("/") == name for e in errors):
            errors.append(FieldError(f"/{name}", "is required"))
    if errors:
        raise Invalid(errors)
    return Definition(**fields)


def _parse_field(
    name: str,
    value: object,
    now: float,
    networks: AddressPolicy,
    fields: dict[str, Any],
    errors: list[FieldError],
    *,
    in_url: bool = False,
) -> None:
    try:
        if name == "trigger_at":
            fields[name] = parse_trigger(value, now)
        elif name == "callback":
            fields[name] = parse_callback(value, networks)
        elif name in _TOLD:
            fields[name] = None if value is None else parse_callback(value, networks)
        elif (parse := _PARSERS.get(name)) is not None:
            fields[name] = parse(value)
        else:
            known = ", ".join(sorted([*_PARSERS, *_TOLD, "callback", "trigger_at"]))
            raise InvalidValue(f"{quoted(name)} is not a parameter: expected one of {known}")
    except InvalidValue as error:
        # A part of the URL has a name; what stands in the body has a JSON Pointer.
        pointer = name if in_url else pointer_token(name)
        errors.append(FieldError(pointer + error.at, str(error)))


def _integer(value: object, least: int, most: int, unit: str = "") -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidValue(
            f"{quoted(value)} is not accepted: expected an integer from {least:,} to {most:,}{unit}"
        )
    return value


def _parse_method(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_METHOD or not is_token(value):
        raise InvalidValue(f"{quoted(value)} is not an HTTP method (a token of RFC 9110)")
    method = value.upper()
    if method in FORBIDDEN_METHODS:
        raise InvalidValue(f"{quoted(value)} is not accepted: callme makes no {method} requests")
    return method


def _parse_payload(value: object) -> str:
    if not isinstance(value, str):
        # Not repeated here: payloads are nobody's business but the endpoint's.
        raise InvalidValue(f"{kind_of(value)} is not accepted: expected a string")
    size = len(value.encode())
    if size > MAX_PAYLOAD:
        raise InvalidValue(f"a payload of {size:,} bytes: expected at most {MAX_PAYLOAD:,}")
    return value


def _parse_status(value: object) -> int | str:
    if isinstance(value, str) and value.lower() in CLASSES:
        return value.lower()
    if type(value) is int and STATUSES[0] <= value <= STATUSES[1]:
        return value
    raise InvalidValue(
        f'{quoted(value)} is not accepted: expected a status from 100 to 599 or a class like "2xx"'
    )


def _parse_statuses(value: object) -> tuple[int | str, ...]:
    statuses = _parse_each(value, _parse_status)
    # Sorted and without repeats, so that two ways to say the same are the same definition.
    return tuple(sorted(dict.fromkeys(statuses), key=str))


def _parse_retry_delay(value: object) -> tuple[int, ...]:
    delays = list(_parse_each(value, lambda one: _integer(one, 0, MAX_MINUTES, " minutes")))
    while len(delays) > 1 and delays[-1] == delays[-2]:
        delays.pop()
    return tuple(delays)


def _parse_each(value: object, parse: Callable[[object], Any]) -> tuple[Any, ...]:
    """Parse one value, or each of a list of them."""
    if not isinstance(value, list):
        return (parse(value),)
    if not 1 <= len(value) <= MAX_LIST:
        raise InvalidValue(f"a list of {len(value)}: expected 1 to {MAX_LIST} values")
    parsed = []
    for index, one in enumerate(value):
        try:
            parsed.append(parse(one))
        except InvalidValue as error:
            raise InvalidValue(str(error), f"/{index}") from None
    return tuple(parsed)


_PARSERS: dict[str, Callable[[object], Any]] = {
    "task_name": check_name,
    "callback_method": _parse_method,
    "payload": _parse_payload,
    "headers": parse_headers,
    "expected_http_status": _parse_statuses,
    "retry": lambda value: _integer(value, 0, MAX_RETRY),
    "retry_delay": _parse_retry_delay,
    "max_delay": lambda value: _integer(value, 1, MAX_MINUTES, " minutes"),
    "timeout": lambda value: _integer(value, 1, MAX_TIMEOUT, " seconds"),
}
