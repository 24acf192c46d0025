"""Lines of iCalendar (RFC 5545): escaped, folded, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone

MAX_OCTETS = 75
"""Octets of a line, its end not counted (section 3.1)."""
_ESCAPED = re.compile(r"[\\;,]")
# What no line may hold (section 3.1, CONTROL), and what some readers take for an end of line.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def text(value: str) -> str:
    """Return a value of the type TEXT (section 3.3.11)."""
    value = _CONTROLS.sub(" ", value.replace("\r\n", "\n"))
    return _ESCAPED.sub(r"\\\g<0>", value).replace("\n", "\\n")


def time(seconds: int) -> str:
    """Return a DATE-TIME in UTC (section 3.3.5).

    :param seconds: since 1970.
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y%m%dT%H%M%SZ}"


def written(lines: Iterable[str]) -> bytes:
    """Return content lines, each a name, ``:`` and a value, as they are sent."""
    return b"".join(_folded(line.encode()) for line in lines)


def _folded(line: bytes) -> bytes:
    """Break a line where it is too long, but never within a character."""
    parts, room = [], MAX_OCTETS
    while len(line) > room:
        end = room
        while line[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(line[:end])
        line = line[end:]
        # The space that a part begins with is one of its octets.
        room = MAX_OCTETS - 1
    return b"\r\n ".join([*parts, line]) + b"\r\n"
