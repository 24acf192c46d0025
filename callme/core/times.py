"""Times and keys of tasks: parsing, formatting, and JSON Schemas of both.

All times are UTC. A time is in seconds since 1970 unless its name ends in ``_ms`` (milliseconds).
A ``trigger_at`` is always a whole minute.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from functools import lru_cache

from attrs import frozen

from ..errors import InvalidValue, quoted
from .json_schema import Schema, integer, string

MINUTE = 60
"""Seconds of a minute."""
MAX_TIMESTAMP = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second that callme accepts."""
MAX_NAME_LENGTH = 255

_KEY_TAIL = len('@253402300799"')
"""Characters of the longest minute at the end of a quoted key."""
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_RELATIVE = re.compile(r"\+([0-9]{1,12})([mhd])")
_UNIX = re.compile(r"[0-9]{1,15}")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_NOT_IN_NAMES = re.compile(r"[@/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_EXPECTED = (
    "expected a Unix timestamp, +<integer> followed by m, h or d, "
    "or an RFC 3339 time with an offset such as 2028-11-26T00:00:00Z"
)

# No pattern needs to exclude surrogates, which the parser refuses: UTF-8 has none.
_IN_NAMES = _NOT_IN_NAMES.pattern.replace(r"\ud800-\udfff", "").replace("[", "[^")
_ABSOLUTE = f"{_UNIX.pattern}|{_RFC3339.pattern}"
NAME_SCHEMA = string(
    f"1 to {MAX_NAME_LENGTH} characters of Unicode, no `@`, no `/`, no control characters.",
    minLength=1,
    maxLength=MAX_NAME_LENGTH,
    pattern=f"^{_IN_NAMES}+$",
    examples=["trial-end"],
)
TIME_SCHEMA: Schema = {
    "description": "Minute of the call: a Unix timestamp or an RFC 3339 time with an offset, which"
    " is rounded down to its minute; or `+<integer>` followed by `m`, `h` or `d`, which is rounded"
    " up to a whole minute (`+0m` is the present minute). From 1970 to the year 9999.",
    "anyOf": [
        string(pattern=f"^(?:{_RELATIVE.pattern}|{_ABSOLUTE})$"),
        integer(0, MAX_TIMESTAMP),
    ],
    "examples": ["+6h", "1858809600", "2028-11-26T00:00:00Z"],
}
ABSOLUTE_TIME_SCHEMA = string(
    "A Unix timestamp or an RFC 3339 time with an offset, which is rounded down to its minute."
    " From 1970 to the year 9999.",
    pattern=f"^(?:{_ABSOLUTE})$",
    examples=["1858809600"],
)
KEY_SCHEMA = string(
    "Identifier of a task: `<task_name>@<trigger_at>`.",
    pattern=f"^{_IN_NAMES}{{1,{MAX_NAME_LENGTH}}}@(?:{_ABSOLUTE})$",
    examples=["trial-end@1858809600"],
)


@frozen(order=True)
class Key:
    """Identifier of a task, written ``<task_name>@<trigger_at>``."""

    task_name: str
    trigger_at: int

    def __str__(self) -> str:
        return f"{self.task_name}@{self.trigger_at}"


def quoted_key(key: Key) -> str:
    """Return a key for the log; of a long one the middle is left out, and the minute stays."""
    return quoted(str(key), tail=_KEY_TAIL)


def floor_to_minute(seconds: float) -> int:
    """Return the begin of the minute that contains a time."""
    return math.floor(seconds / MINUTE) * MINUTE


def ceil_to_minute(seconds: float) -> int:
    """Return the begin of the first minute that begins at a time or later."""
    return math.ceil(seconds / MINUTE) * MINUTE


def next_minute(now: float) -> int:
    """Return the begin of the first minute that begins after ``now``."""
    return floor_to_minute(now) + MINUTE


def parse_trigger(value: object, now: float) -> int:
    """Return the minute that a ``trigger_at`` means at the time ``now``.

    An absolute time is rounded down to its minute. A relative time is rounded up, except for
    ``+0m``, which is the present minute.

    :raises InvalidValue: when it has none of the accepted forms, or is before 1970 or after the
        year 9999.
    """
    if isinstance(value, str) and (match := _RELATIVE.fullmatch(value)):
        if value == "+0m":
            return floor_to_minute(now)
        return _bounded(ceil_to_minute(now + int(match[1]) * _UNITS[match[2]]), value)
    return parse_absolute(value)


def parse_absolute(value: object) -> int:
    """Return the minute that contains an absolute ``trigger_at``.

    :raises InvalidValue: as :func:`parse_trigger` does, and for a relative time.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, value)
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a time: {_EXPECTED}")
    if _UNIX.fullmatch(value):
        return _bounded(int(value), value)
    if match := _RFC3339.fullmatch(value):
        return _bounded(_from_rfc3339(match), value)
    raise InvalidValue(f"{quoted(value)} is not a time: {_EXPECTED}")


def _from_rfc3339(match: re.Match[str]) -> int:
    """Return the Unix timestamp of an RFC 3339 date-time (section 5.6)."""
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    offset_hours, offset_minutes = int(match[8] or 0), int(match[9] or 0)
    # RFC 3339 allows :60 for a leap second. Unix time counts it as the first second of the next
    # minute, but the client means the minute that it wrote.
    if second == 60:
        second = 59
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError as error:
        raise InvalidValue(f"{quoted(match[0])} is not a time: {error}") from None
    if offset_hours > 23 or offset_minutes > 59:
        raise InvalidValue(f"{quoted(match[0])} is not a time: its offset is out of range")
    offset = offset_hours * 3600 + offset_minutes * 60
    return int(local.timestamp()) + (offset if match[7] == "-" else -offset)


def _bounded(seconds: int, value: object) -> int:
    if not 0 <= seconds <= MAX_TIMESTAMP:
        raise InvalidValue(
            f"{quoted(value)} is out of range: expected a time from 1970 to the year 9999"
        )
    return floor_to_minute(seconds)


def parse_task_name(value: object) -> str:
    """Return the name of a task, unchanged.

    :raises InvalidValue: when it is not 1 to 255 characters of Unicode without ``@``, ``/`` and
        control characters.
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a name: expected a string")
    if not 1 <= len(value) <= MAX_NAME_LENGTH:
        raise InvalidValue(
            f"a name of {len(value)} characters: expected 1 to {MAX_NAME_LENGTH} characters"
        )
    if bad := _NOT_IN_NAMES.search(value):
        raise InvalidValue(
            f"{quoted(value)} contains {bad[0]!a}: "
            "expected a name without '@', '/', control characters and lone surrogates"
        )
    return value


def parse_key(text: str) -> Key:
    """Return the key that a text ``<task_name>@<trigger_at>`` stands for.

    :raises InvalidValue: when it is not a name, one ``@`` and an absolute time.
    """
    name, at, when = text.partition("@")
    if not at:
        raise InvalidValue(f"{quoted(text)} is not a key: expected <task_name>@<trigger_at>")
    return Key(parse_task_name(name), parse_absolute(when))


def to_ms(seconds: float) -> int:
    """Return a time in milliseconds, rounded down."""
    return int(seconds * 1000)


def rfc3339(milliseconds: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339 with milliseconds, in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]
