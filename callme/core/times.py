"""Times and keys: the one place where they are parsed and written.

All times are UTC and, unless a name says otherwise, seconds since 1970. A
``trigger_at`` is always a whole minute.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from functools import lru_cache

from attrs import frozen

from ..errors import InvalidValue, quoted

MINUTE = 60
MAX_TIMESTAMP = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second that callme accepts."""
MAX_NAME = 255

_UNITS = {"m": 60, "h": 3600, "d": 86400}
RELATIVE = re.compile(r"\+([0-9]{1,12})([mhd])")
UNIX = re.compile(r"[0-9]{1,15}")
RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
NOT_IN_NAMES = re.compile(r"[@/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_EXPECTED = (
    "expected a Unix timestamp, +<integer> followed by m, h or d, "
    "or an RFC 3339 time with an offset such as 2028-11-26T00:00:00Z"
)


@frozen(order=True)
class Key:
    """What identifies a task, written ``<task_name>@<trigger_at>``."""

    task_name: str
    trigger_at: int

    def __str__(self) -> str:
        return f"{self.task_name}@{self.trigger_at}"


def floor_to_minute(seconds: float) -> int:
    """Return the minute that ``seconds`` lies in."""
    return math.floor(seconds / MINUTE) * MINUTE


def ceil_to_minute(seconds: float) -> int:
    """Return the first minute that begins at ``seconds`` or later."""
    return math.ceil(seconds / MINUTE) * MINUTE


def next_minute(now: float) -> int:
    """Return the first minute that begins after ``now``."""
    return floor_to_minute(now) + MINUTE


def parse_trigger(value: object, now: float) -> int:
    """Return the minute that a ``trigger_at`` means at the time ``now``.

    An absolute time is truncated to its minute; a relative one is never sooner
    than asked, but for ``+0m``, which is the present minute.

    :raises InvalidValue: when it is none of the accepted forms, or lies before
        1970 or after the year 9999.
    """
    if isinstance(value, str) and (match := RELATIVE.fullmatch(value)):
        if value == "+0m":
            return floor_to_minute(now)
        return _bounded(ceil_to_minute(now + int(match[1]) * _UNITS[match[2]]), value)
    return parse_absolute(value)


def parse_absolute(value: object) -> int:
    """Return the minute that an absolute ``trigger_at`` lies in.

    :raises InvalidValue: as :func:`parse_trigger`, and for a relative time.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, value)
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a time: {_EXPECTED}")
    if UNIX.fullmatch(value):
        return _bounded(int(value), value)
    if match := RFC3339.fullmatch(value):
        return _bounded(_from_rfc3339(match), value)
    raise InvalidValue(f"{quoted(value)} is not a time: {_EXPECTED}")


def _from_rfc3339(match: re.Match[str]) -> int:
    """Return the second that an RFC 3339 date-time (section 5.6) names."""
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    offset_hours, offset_minutes = int(match[8] or 0), int(match[9] or 0)
    # RFC 3339 allows :60 for a leap second, which Unix time counts as the next second;
    # a task is called in the minute that was written, so it is kept in its minute.
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
    """Return a ``task_name`` that may stand in a key.

    :raises InvalidValue: when it is not 1 to 255 characters of Unicode without
        ``@``, ``/`` and control characters.
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a name: expected a string")
    if not 1 <= len(value) <= MAX_NAME:
        raise InvalidValue(
            f"a name of {len(value)} characters: expected 1 to {MAX_NAME} characters"
        )
    if bad := NOT_IN_NAMES.search(value):
        raise InvalidValue(
            f"{quoted(value)} contains {bad[0]!a}: "
            "a name has no '@', no '/', no control characters and no lone surrogates"
        )
    return value


def parse_key(text: str) -> Key:
    """Return the key written as ``<task_name>@<trigger_at>``.

    :raises InvalidValue: when it is not a name, one ``@`` and an absolute time.
    """
    name, at, when = text.partition("@")
    if not at:
        raise InvalidValue(f"{quoted(text)} is not a key: expected <task_name>@<trigger_at>")
    return Key(parse_task_name(name), parse_absolute(when))


def to_ms(seconds: float) -> int:
    """Return a time in whole milliseconds, those begun left out."""
    return int(seconds * 1000)


def rfc3339(milliseconds: int) -> str:
    """Write a time in milliseconds since 1970 as RFC 3339 UTC with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]
