"""Times and keys of tasks: their parsers, formats and JSON Schemas.

All times are UTC. A time is in seconds since 1970 unless its name ends in ``_ms`` (milliseconds).
A ``trigger_at`` is always a whole minute.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache

from attrs import frozen

from ..errors import InvalidValue, quoted
from .json_schema import Schema, string
from .text import durations, zones

MINUTE = 60
"""Seconds in a minute."""
MAX_TIMESTAMP = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second that callme accepts."""
MAX_NAME_LENGTH = 255

_KEY_TAIL = len('@253402300799"')
"""Length in characters of the longest ``@<trigger_at>`` at the end of a quoted key."""
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_RELATIVE = re.compile(r"\+([0-9]{1,12})([mhd])")
_PRESENT = ("+0m", "0m", "now")
"""The texts that mean the current minute."""
_UNIX = re.compile(r"([0-9]{1,21})(?:\.[0-9]{1,21})?")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
# RFC 9557 without its tags. The critical flag "!" before a time zone is accepted and has no effect:
# callme refuses an unknown zone in any case.
_ZONED = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)"
    r"([Zz]|[+-][0-9]{2}:?[0-9]{2})?\[!?([A-Za-z0-9_.+/-]{1,64})\]"
)
_ROW = re.compile(r"@([0-9]{1,18})")
_TIME_BEGIN = re.compile(r"[0-9+P]|now$|$")
_NOT_IN_NAMES = re.compile(r"[@/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_EXPECTED_ABSOLUTE = (
    "expected a Unix timestamp, a time with an offset such as 2028-11-26T09:00Z, "
    "or a local time with a zone such as 2028-11-26T09:00[Europe/Berlin]"
)
_EXPECTED = f"{_EXPECTED_ABSOLUTE.replace(', or', ',')}, or a duration such as +6h"
NO_RECURRING = (
    "callme has no recurring tasks: "
    "docs/migrating.md, section From cron, has two ways to repeat a task"
)
"""The error for recurring schedules."""
_SEPARATORS = "expected separators in it, such as 2028-11-26T09:00Z"
_COMPACT_MINUTE = re.compile(r"(?:19|20|21)\d\d(?:0\d|1[0-2])[0-3]\d[0-2]\d[0-5]\d")
"""A date and a time of 12 digits, without seconds."""
_COMPACT = re.compile(_COMPACT_MINUTE.pattern + r"[0-5]\d")
_FORMS_WITHOUT_MEANING = (
    (
        re.compile(r"@[A-Za-z].*|[0-9*/,A-Za-z?#-]+(?:\s+[0-9*/,A-Za-z?#-]+){4,5}"),
        NO_RECURRING,
    ),
    (
        re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d,\d.*", re.ASCII),
        "expected a point before the fraction of a second, or no fraction",
    ),
    (
        re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d{1,2}(?!:|\d).*", re.ASCII),
        "expected the hour and the minute, such as T09:00Z",
    ),
    (
        re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII),
        "expected an offset or a zone after it, such as Z, +01:00 or [Europe/Berlin]",
    ),
    (
        re.compile(r"\d{4}-\d\d-\d\d", re.ASCII),
        "expected a time of day and an offset after it, such as T09:00Z",
    ),
    (
        re.compile(r"\d{1,2}:\d\d.*", re.ASCII),
        "expected a date before it, such as 2028-11-26T, and an offset after it, such as Z",
    ),
    (
        re.compile(r"\d{8}T\d{4,6}.*", re.ASCII),
        _SEPARATORS,
    ),
    (
        re.compile(r"0x[0-9A-Fa-f]+|\d+(?:\.\d+)?[eE]\+?\d+", re.ASCII),
        "expected the digits of a Unix timestamp, such as 1858809600",
    ),
    (re.compile(r"\+\d+", re.ASCII), "expected a unit after it: w, d, h, m or s"),
    (re.compile(r"\+?-\s*\d.*", re.ASCII), "a duration counts from now on: it cannot be negative"),
    (
        re.compile(r"\s+\S+\s*|\S+\s+"),
        "expected it without the spaces around it",
    ),
    (
        re.compile(r"(?:in )?[+ ]*\d{1,6}(?:[.,]\d+)?\s*[A-Za-z][A-Za-z0-9 .]*", re.ASCII),
        "expected a duration in whole w, d, h, m and s, in this order, such as +1d12h or +90m",
    ),
    (
        re.compile(r"\+?P.*[YM].*"),
        "a year and a month have no fixed length: expected weeks, days, hours, minutes, seconds",
    ),
)
"""Patterns of frequent invalid times, each with advice for the client."""

# The patterns do not exclude surrogates: the JSON parser refuses them, and UTF-8 has none.
_IN_NAMES = _NOT_IN_NAMES.pattern.replace(r"\ud800-\udfff", "").replace("[", "[^")
_ABSOLUTE = f"{_UNIX.pattern}|{_RFC3339.pattern}|{_ZONED.pattern}"
NAME_SCHEMA = string(
    f"1 to {MAX_NAME_LENGTH} characters of Unicode, no `@`, no `/`, no control characters.",
    minLength=1,
    maxLength=MAX_NAME_LENGTH,
    pattern=f"^{_IN_NAMES}+$",
    examples=["trial-end"],
)
TIME_SCHEMA: Schema = {
    "description": "Minute of the call. An absolute time is rounded down to its minute: a Unix"
    " timestamp, a time with an offset, or a local time with a zone (RFC 9557). A duration from now"
    " is rounded up to a whole minute: `+90s`, `6h`, `1d12h`, `+2w`, `PT5M`. `now` and `+0m` are"
    " the present minute. From 1970 to the year 9999.",
    "anyOf": [
        string(pattern=f"^(?:now|{durations.PATTERN}|{_ABSOLUTE})$"),
        {"type": "number", "minimum": 0, "exclusiveMaximum": MAX_TIMESTAMP + 1},
    ],
    "examples": ["+6h", "1858809600", "2028-11-26T09:00Z", "2028-11-26T09:00[Europe/Berlin]"],
}
ABSOLUTE_TIME_SCHEMA = string(
    "A Unix timestamp, a time with an offset, or a local time with a zone, which is rounded down"
    " to its minute. From 1970 to the year 9999.",
    pattern=f"^(?:{_ABSOLUTE})$",
    examples=["1858809600"],
)
KEY_SCHEMA = string(
    "Identifier of a task: `<task_name>@<trigger_at>`; of one whose stored name or minute is"
    " damaged, `@<number>`.",
    pattern=f"^(?:{_IN_NAMES}{{1,{MAX_NAME_LENGTH}}}@(?:{_ABSOLUTE})|{_ROW.pattern})$",
    examples=["trial-end@1858809600"],
)


@frozen(order=True)
class Key:
    """Identifier of a task, written ``<task_name>@<trigger_at>``.

    If another program has damaged the stored name or minute of a task, the number of its row
    identifies it, written ``@<number>``: see :meth:`of_row`.
    """

    task_name: str
    trigger_at: int

    @classmethod
    def of_row(cls, number: int) -> Key:
        """Return the identifier of a row whose stored name or minute cannot be read."""
        return cls("", number)

    @property
    def row_number(self) -> int | None:
        """The number of the row if it identifies the task; otherwise ``None``."""
        # Only keys of rows have an empty name.
        return None if self.task_name else self.trigger_at

    def __str__(self) -> str:
        return f"{self.task_name}@{self.trigger_at}"


def quoted_key(key: Key) -> str:
    """Return a key for the log; the middle of a long name is omitted."""
    return quoted(str(key), tail=_KEY_TAIL)


def floor_to_minute(seconds: float) -> int:
    """Return the start of the minute that contains a time; all in seconds since 1970."""
    return math.floor(seconds / MINUTE) * MINUTE


def ceil_to_minute(seconds: float) -> int:
    """Return the start of the first minute that starts at a time or later."""
    return math.ceil(seconds / MINUTE) * MINUTE


def next_minute(now: float) -> int:
    """Return the start of the first minute that starts after ``now``."""
    return floor_to_minute(now) + MINUTE


Warn = Callable[[str], None]
"""Receiver of a sentence about an input that is valid but may not be intended."""


def _ignore(warning: str) -> None:
    """Discard a warning."""


def parse_trigger(value: object, now: float, warn: Warn = _ignore) -> int:
    """Return the minute of a ``trigger_at``, in seconds since 1970.

    An absolute time is rounded down to its minute. A duration is rounded up, except for ``now``
    and ``+0m``, which mean the current minute.

    :param now: the time from which durations count: seconds since 1970.
    :param warn: called for a local time that its zone skips or repeats.
    :raises InvalidValue: when the value has none of the accepted forms, or is before 1970 or after
        the year 9999.
    """
    if isinstance(value, str):
        if value in _PRESENT:
            return floor_to_minute(now)
        # Durations are the most frequent form, and this pattern is the fastest.
        if match := _RELATIVE.fullmatch(value):
            return _bounded(ceil_to_minute(now + int(match[1]) * _UNITS[match[2]]), value)
        if match := _UNIX.fullmatch(value):
            return _from_number(int(match[1]), value, warn)
        if (seconds := durations.parse_duration(value)) is not None:
            return _bounded(ceil_to_minute(now + seconds), value)
    return _parse_absolute(value, _EXPECTED, warn)


def parse_absolute(value: object) -> int:
    """Return the minute that contains an absolute ``trigger_at``.

    :raises InvalidValue: under the conditions of :func:`parse_trigger`, and for a duration.
    """
    try:
        return _parse_absolute(value, _EXPECTED_ABSOLUTE)
    except InvalidValue:
        if value in _PRESENT or (isinstance(value, str) and durations.parse_duration(value)):
            raise InvalidValue(
                f"{quoted(value)} counts from now: expected the minute of a task, "
                "such as 1858809600 or 2028-11-26T09:00Z"
            ) from None
        raise


def _parse_absolute(value: object, expected: str, warn: Warn = _ignore) -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _from_number(value, value, warn)
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a time: {expected}")
    if match := _UNIX.fullmatch(value):
        return _from_number(int(match[1]), value)
    if match := _RFC3339.fullmatch(value):
        return _bounded(_from_rfc3339(match), value)
    if match := _ZONED.fullmatch(value):
        return _bounded(_from_rfc9557(match, warn), value)
    raise InvalidValue(f"{quoted(value)} is not a time: {_advice(value) or expected}")


def _advice(value: str) -> str:
    """Return advice for a text that is not a time; empty if there is none."""
    # The patterns are slow for long texts, and no accepted form has more than 100 characters.
    if len(value) <= 100:
        for pattern, advice in _FORMS_WITHOUT_MEANING:
            if pattern.fullmatch(value):
                return advice
    return ""


def _from_rfc9557(match: re.Match[str], warn: Warn) -> int:
    """Return the Unix timestamp of a time with a zone (RFC 9557, section 4.1)."""
    text, offset, name = match[1], match[2], match[3]
    written = _RFC3339.fullmatch(f"{text}{offset or 'Z'}")
    assert written is not None
    timestamp = _from_rfc3339(written)
    try:
        if offset is None:
            local = datetime.fromtimestamp(timestamp, timezone.utc).replace(tzinfo=None)
            timestamp, warning = zones.local_to_utc(local, name)
            if warning:
                warn(warning)
            return timestamp
        # Z states that the local offset is unknown (RFC 9557, section 2.2), so it matches any zone.
        local_offset = zones.offset_at(timestamp, name)
    except (ValueError, OverflowError) as error:
        reason = error if isinstance(error, InvalidValue) else "it is out of range"
        raise InvalidValue(f"{quoted(match[0])} is not a time: {reason}") from None
    if offset not in ("Z", "z") and _offset_seconds(written) != local_offset:
        sign, minutes = "-" if local_offset < 0 else "+", abs(local_offset) // MINUTE
        raise InvalidValue(
            f"{quoted(match[0])} is not a time: the offset of {name} is "
            f"{sign}{minutes // 60:02d}:{minutes % 60:02d} then; leave out the offset or the zone"
        )
    return timestamp


def _from_rfc3339(match: re.Match[str]) -> int:
    """Return the Unix timestamp of an RFC 3339 date-time (section 5.6)."""
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    # RFC 3339 allows :60 for a leap second. Unix time counts it as the first second of the next
    # minute, but the client means the minute that it wrote.
    if second == 60:
        second = 59
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError as error:
        raise InvalidValue(f"{quoted(match[0])} is not a time: {error}") from None
    return int(local.timestamp()) - _offset_seconds(match)


def _offset_seconds(match: re.Match[str]) -> int:
    """Return the offset of an RFC 3339 date-time in seconds east of UTC."""
    hours, minutes = int(match[8] or 0), int(match[9] or 0)
    if hours > 23 or minutes > 59:
        raise InvalidValue(f"{quoted(match[0])} is not a time: its offset is out of range")
    return (hours * 3600 + minutes * 60) * (-1 if match[7] == "-" else 1)


def _bounded(seconds: int, value: object) -> int:
    if not 0 <= seconds <= MAX_TIMESTAMP:
        raise InvalidValue(
            f"{quoted(value)} is out of range: expected a time from 1970 to the year 9999"
        )
    return floor_to_minute(seconds)


def _from_number(seconds: float, value: object, warn: Warn = _ignore) -> int:
    """Return the minute of a Unix timestamp; a fraction of a second is discarded."""
    if 0 <= seconds < MAX_TIMESTAMP + 1:
        if _COMPACT_MINUTE.fullmatch(str(value)):
            warn(f"{value} is a Unix timestamp; a date has separators, as in 2028-11-26T09:00Z")
        return floor_to_minute(seconds)
    if _COMPACT.fullmatch(str(value)):
        raise InvalidValue(f"{quoted(value)} is out of range: {_SEPARATORS}")
    for unit, factor in (("milli", 1000), ("micro", 10**6), ("nano", 10**9)):
        if 0 < seconds <= MAX_TIMESTAMP * factor:
            raise InvalidValue(
                f"{quoted(value)} is out of range: it looks like {unit}seconds, "
                f"expected seconds since 1970: divide it by {factor:,}"
            )
    return _bounded(-1, value)


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


def check_minute(seconds: int) -> int:
    """Return the minute of a task, unchanged.

    :raises InvalidValue: when it is not a whole minute from 1970 to the year 9999.
    """
    if not 0 <= seconds <= MAX_TIMESTAMP or seconds % MINUTE:
        raise InvalidValue(f"{seconds} is not a minute from 1970 to the year 9999")
    return seconds


def is_key(task_name: object, trigger_at: object) -> bool:
    """Return whether two stored values are a valid name and a valid minute."""
    return (
        type(task_name) is str
        and type(trigger_at) is int
        and 1 <= len(task_name) <= MAX_NAME_LENGTH
        and 0 <= trigger_at <= MAX_TIMESTAMP
        and not trigger_at % MINUTE
        and not _NOT_IN_NAMES.search(task_name)
    )


def parse_key(text: str) -> Key:
    """Return the key in a text ``<task_name>@<trigger_at>`` or ``@<number>``.

    :raises InvalidValue: when the text has neither form, or its time is not absolute.
    """
    if match := _ROW.fullmatch(text):
        return Key.of_row(int(match[1]))
    name, at, when = text.partition("@")
    if not at:
        raise InvalidValue(f"{quoted(text)} is not a key: expected <task_name>@<trigger_at>")
    parse_task_name(name)
    if advice := name_with_at(when):
        raise InvalidValue(advice)
    return Key(name, parse_absolute(when))


def name_with_at(when: str) -> str:
    """Return the error for an ``@`` in the name of a task in a URL; empty if a time follows it.

    :param when: the text after the ``@``.
    """
    # Every accepted time begins with this pattern.
    if _TIME_BEGIN.match(when):
        return ""
    return f"{quoted(when)} is not a time: '@' separates name and time, and a name has no '@'"


def to_ms(seconds: float) -> int:
    """Return a time in seconds as milliseconds, rounded down."""
    return int(seconds * 1000)


def rfc3339(milliseconds: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339 with milliseconds, in UTC.

    A time after the year 9999, which the end of a ``max_delay`` can be, becomes the end of that
    year, the last time that RFC 3339 can express.
    """
    seconds, rest = divmod(min(milliseconds, 1000 * MAX_TIMESTAMP + 999), 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]
