"""Headers of a callback: validation and redaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..errors import InvalidMembers, InvalidValue, json_type, pointer_token, quoted
from ..security.signing import SIGNATURE_HEADERS
from .json_schema import any_case, string

MAX_HEADERS = 100
MAX_HEADER_BYTES = 8_192
MASK = "***"

# The signature headers are refused even if callme has no signing keys: a stored task must stay
# valid when the operator adds a key.
OWN_HEADERS = SIGNATURE_HEADERS | {
    "accept-encoding",
    "idempotency-key",
    "callme-attempt",
    "callme-rescheduled-from",
    "callme-trigger-at",
}
FRAMING_HEADERS = frozenset({"host", "content-length", "connection", "transfer-encoding"})
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Control characters (RFC 9110, section 5.5), and the characters that some software reads as a line
# break: U+0085, U+2028, U+2029.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_LOOKS_SECRET = re.compile(
    r"auth|cookie|token|secret|pass|pwd|credential|sig|hmac|session|jwt|bearer|csrf|xsrf|key",
    re.IGNORECASE,
)

_CONTROL_CLASS = _CONTROLS.pattern.strip("[]")
_INNER, _EDGE = f"[^{_CONTROL_CLASS}]", f"[^{_CONTROL_CLASS}\\x09 ]"
_NOT_ACCEPTED = any_case(FRAMING_HEADERS | OWN_HEADERS).replace("-", "[-_]")
HEADERS_SCHEMA = {
    "type": "object",
    "maxProperties": MAX_HEADERS,
    "propertyNames": {
        "pattern": f"^{TOKEN.pattern}$",
        "not": {"pattern": f"^(?:{_NOT_ACCEPTED})$"},
    },
    "additionalProperties": string(pattern=f"^(?:{_EDGE}(?:{_INNER}*{_EDGE})?)?$"),
    "examples": [{"Authorization": "Bearer 0123456789"}],
}


def is_token(text: str) -> bool:
    """Return whether a text is a token (RFC 9110, section 5.6.2)."""
    return TOKEN.fullmatch(text) is not None


def parse_headers(value: object) -> dict[str, str]:
    """Return the headers of a callback, unchanged.

    :raises InvalidValue: when the value is not an object, or has too many headers or bytes; and
        with an error for each header that callme or HTTP itself sets, whose name occurs twice, or
        whose value is not a string or contains a character that could split a request.
    """
    if not isinstance(value, dict):
        raise InvalidValue(f"{json_type(value)} is not {_OBJECT}")
    if len(value) > MAX_HEADERS:
        raise InvalidValue(f"{len(value)} headers: expected at most {MAX_HEADERS}")
    if errors := list(_errors_in(value)):
        raise InvalidMembers(errors)
    size = sum(len(name) + len(content.encode()) for name, content in value.items())
    if size > MAX_HEADER_BYTES:
        raise InvalidValue(f"headers of {size} bytes: expected at most {MAX_HEADER_BYTES}")
    return dict(value)


def _errors_in(headers: Mapping[str, object]) -> Iterator[InvalidValue]:
    names: set[str] = set()
    for number, (name, content) in enumerate(headers.items(), start=1):
        try:
            _check_header(number, name, content)
            if name.lower() in names:
                raise InvalidValue(f"the header {quoted(name)} is given twice", pointer_token(name))
        except InvalidValue as error:
            yield error
        names.add(name.lower())


def _check_header(number: int, name: str, content: object) -> None:
    if not is_token(name):
        # The error omits the name: clients put whole header lines there, with their secrets.
        raise InvalidValue(f"the name of header {number} is not a token of RFC 9110: {_NAME}")
    pointer = pointer_token(name)
    # Many servers pass headers to applications as variables, in which - and _ are the same (RFC
    # 3875, section 4.1.18): they would read Content_Length as Content-Length.
    lowered = name.lower().replace("_", "-")
    if lowered in FRAMING_HEADERS or lowered in OWN_HEADERS:
        raise InvalidValue(f"the header {quoted(name)} {_OWN}", pointer)
    if wrong := _error_in_value(content):
        raise InvalidValue(f"the value of {quoted(name)} {wrong}", pointer)


def _error_in_value(content: object) -> str:
    """Return the error of a value, without the value, which may be a secret; empty for none."""
    if not isinstance(content, str):
        return f"is {json_type(content)}: expected a string"
    if _CONTROLS.search(content):
        return "contains a control character: expected none"
    if content != content.strip(" \t"):
        return "begins or ends with white space: expected none there"
    return ""


_OWN = "is set by callme itself: leave it out"
_OBJECT = 'an object of header names and values: expected one such as {"X-Customer": "42"}'
_NAME = "expected a name such as X-Customer, and its value apart from it"


def looks_secret(name: str) -> bool:
    """Return whether the name of a header suggests that its value is a secret."""
    return _LOOKS_SECRET.search(name) is not None


def redact_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with the values of secret ones masked, for a response about one task."""
    return {name: MASK if looks_secret(name) else content for name, content in headers.items()}


def redact_all(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with all values masked, for lists and errors."""
    return dict.fromkeys(headers, MASK)
