"""Tasks as a calendar shows them: what is scheduled, what failed lately (RFC 5545, RFC 7986).

A calendar may be read by another company's servers. It tells names, minutes, hosts and what
went wrong, and nothing that may be a secret: no payload, no headers, no URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from uuid import UUID, uuid5

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from .. import __version__
from ..core.task import State, Task
from ..core.times import rfc3339
from ..errors import quoted
from ..server.problem import Problem
from ..store.interface import CalendarData, Event, Store
from .requests import parse_query
from .responses import calendar_response

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


def fold_lines(lines: Iterable[str]) -> bytes:
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


ICS = ".ics"
"""How a path ends that means a calendar, unless a name ends so."""
_DAY = 86_400
_LONG = 32 * 1024
"""Bytes of a calendar after which others have a turn."""


async def calendar_of(
    store: Store, request: IRequest, target: str | None, now: float, clock: IReactorTime
) -> bytes:
    """Answer with the calendar of a name, or of all tasks, which was asked for as such.

    :param clock: what gives others a turn meanwhile.
    :raises Problem: when there is no such name.
    """
    parse_query(request)
    agenda = await _agenda(store, target, now)
    if agenda is None:
        return await calendar_at(store, request, target, now, clock)
    return await _answer(request, agenda, target, clock)


async def calendar_at(
    store: Store, request: IRequest, target: str | None, now: float, clock: IReactorTime
) -> bytes:
    """Answer with the calendar at a path whose end is no name, but may be ``.ics``.

    :raises Problem: when it is not, or there is no such name.
    """
    if target is not None and target.endswith(ICS):
        name = target.removesuffix(ICS) or None
        agenda = await _agenda(store, name, now)
        if agenda is not None:
            parse_query(request)
            return await _answer(request, agenda, name, clock)
    raise Problem(404, f"there is no task named {quoted(target)}")


async def _agenda(store: Store, task_name: str | None, now: float) -> CalendarData | None:
    until, since = int(now) + AHEAD_DAYS * _DAY, int(now) - BACK_DAYS * _DAY
    return await store.agenda(task_name, until, since, MAX_EVENTS)


async def _answer(
    request: IRequest, agenda: CalendarData, task_name: str | None, clock: IReactorTime
) -> bytes:
    parts = []
    for part in calendar(agenda, task_name, __version__):
        parts.append(part)
        if len(part) > _LONG:
            await deferLater(clock, 0)
    return calendar_response(request, b"".join(parts))


AHEAD_DAYS = 90
"""How far ahead a calendar looks."""
BACK_DAYS = 7
"""How long a failure stands in it."""
MAX_EVENTS = 500
"""How many tasks it holds, of those that are scheduled and of those that failed."""
REFRESH = "PT15M"
"""How often it asks to be read."""
SLICE = 100
"""Events that are written at a time."""
_END = ("END:VCALENDAR",)
_NAMESPACE = UUID("7c8a1f0e-5f0c-4c53-9d55-2f1f6f0f9b6a")
# A calendar must hold something (RFC 5545, section 3.6).
_NOTHING = (
    "BEGIN:VTIMEZONE",
    "TZID:Etc/UTC",
    "BEGIN:STANDARD",
    "DTSTART:19700101T000000",
    "TZOFFSETFROM:+0000",
    "TZOFFSETTO:+0000",
    "END:STANDARD",
    "END:VTIMEZONE",
)


def calendar(agenda: CalendarData, task_name: str | None, version: str) -> Iterator[bytes]:
    """Yield a calendar as it is sent, a few milliseconds' work at a time.

    :param task_name: the name that all its tasks have; ``None`` where it is of any.
    :param version: callme's.
    """
    yield fold_lines(_head(agenda, task_name, version))
    events = [*agenda.failed, *agenda.scheduled]
    for begin in range(0, len(events), SLICE):
        yield fold_lines(line for event in events[begin : begin + SLICE] for line in _event(event))
    yield fold_lines(_END if events else (*_NOTHING, *_END))


def _head(agenda: CalendarData, task_name: str | None, version: str) -> Iterator[str]:
    name = text("callme" if task_name is None else f"callme: {task_name}")
    description = text(_described(agenda))
    yield from ("BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:-//callme//callme {version}//EN")
    yield "CALSCALE:GREGORIAN"
    # What RFC 7986 has a name for, many still know by the older one.
    yield from (f"NAME:{name}", f"X-WR-CALNAME:{name}")
    yield from (f"DESCRIPTION:{description}", f"X-WR-CALDESC:{description}")
    yield from (f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}", f"X-PUBLISHED-TTL:{REFRESH}")


def _described(agenda: CalendarData) -> str:
    told = (
        f"What is scheduled in the next {AHEAD_DAYS} days and what failed in the last "
        f"{BACK_DAYS}: at most {MAX_EVENTS} tasks of each."
    )
    if agenda.more_scheduled:
        last = agenda.scheduled[-1].task.due_at
        assert last is not None
        told += f" More are scheduled: only those up to {rfc3339(last * 1000)} are here."
    if agenda.more_failed:
        first = agenda.failed[-1].task.finished_at_ms
        assert first is not None
        told += f" More have failed: only those since {rfc3339(first)} are here."
    return told


def _event(event: Event) -> Iterator[str]:
    task = event.task
    failed = task.state is State.FAILED
    changed = time(event.changed_at_ms // 1000)
    begins = task.definition.trigger_at if failed or task.due_at is None else task.due_at
    yield "BEGIN:VEVENT"
    yield f"UID:{uuid5(_NAMESPACE, str(task.key))}"
    # Without a METHOD the two mean the same (RFC 5545, section 3.8.7.2).
    yield from (f"DTSTAMP:{changed}", f"LAST-MODIFIED:{changed}")
    yield f"CREATED:{time(task.created_at_ms // 1000)}"
    yield f"SEQUENCE:{event.last_attempt + failed}"
    yield from (f"DTSTART:{time(begins)}", "DURATION:PT1M")
    yield f"SUMMARY:{text(_summary(task))}"
    yield f"DESCRIPTION:{text(_story(event))}"
    yield f"CATEGORIES:{task.state.value}"
    # Not CANCELLED, which many do not show: a failure is to be seen.
    yield from ("STATUS:CONFIRMED", "TRANSP:TRANSPARENT", "END:VEVENT")


def _summary(task: Task) -> str:
    name, allowed = task.definition.task_name, 1 + task.definition.retry
    if task.state is State.FAILED:
        return f"{name}: failed" + (f" ({task.reason.value})" if task.reason else "")
    if task.attempts_used:
        return f"{name}: attempt {task.attempts_used + 1} of {allowed}"
    return name


def _story(event: Event) -> str:
    task = event.task
    definition = task.definition
    lines = [
        str(task.key),
        f"{definition.callback_method} to {event.host}",
        f"{task.attempts_used} of {1 + definition.retry} attempts used",
    ]
    return "\n".join([*lines, task.detail] if task.detail else lines)
