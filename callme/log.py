"""The log as JSON lines: ``twistd -n --logger callme.log.json_lines callme``."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, TextIO

from twisted.logger import FileLogObserver, ILogObserver, LogEvent, formatEvent
from twisted.python.failure import Failure

from .core.times import rfc3339, to_ms

_TWISTED = ("format", "isError", "message", "printed", "system", "text", "time")
"""Keys that Twisted adds to events for its legacy log."""


def json_lines(file: TextIO | None = None) -> ILogObserver:
    """Return an observer that writes each event as a JSON object on one line.

    The members are ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``, ``traceback``
    for an unexpected error, and the values in the message under their own names.

    :param file: the destination; the standard output by default.
    """
    return FileLogObserver(file or sys.stdout, _encode)


def _encode(event: LogEvent) -> str:
    level = event.get("log_level")
    members: dict[str, Any] = {
        "time": rfc3339(to_ms(event.get("log_time", 0.0))),
        "level": "info" if level is None else level.name,
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        members["traceback"] = failure.getTraceback()
    for name, value in event.items():
        is_own = not name.startswith("log_") and name not in _TWISTED
        if is_own and isinstance(value, (str, int, float, bool)):
            members.setdefault(name, _unquoted(value))
    return json.dumps(members, ensure_ascii=False) + "\n"


def _unquoted(value: Any) -> Any:
    """Return a value of a message without the quotation marks around it."""
    if isinstance(value, str) and value.startswith('"') and value.endswith('"'):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
