"""Calendars of scheduled and recently failed tasks in iCalendar format (RFC 5545, RFC 7986).

Servers of another company may fetch a calendar. It contains names, minutes, hosts and errors, but
no possible secrets: no payloads, headers or URLs.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from hashlib import sha256
from uuid import UUID, uuid5

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from .. import __version__
from ..core.task import State, Task
from ..core.times import rfc3339
from ..server.auth import access_of
from ..store import stats
from ..store.database import Store
from ..store.interface import CalendarData, Event
from .problems import no_task
from .requests import parse_query
from .responses import calendar_response

AHEAD_DAYS = 90
"""Days from now whose scheduled tasks are in the calendar."""
BACK_DAYS = 7
"""Days for which a failed task stays in the calendar."""
MAX_EVENTS = 500
"""Maximum number of scheduled tasks, and of failed tasks, in a calendar."""
REFRESH = "PT15M"
"""Interval at which clients should fetch the calendar."""
ICS = ".ics"
"""Suffix of a path that selects a calendar, unless a task has a name with this suffix. The suffix
alone always selects the calendar of all tasks."""
MAX_VERSIONS = 1_000
"""Maximum number of calendars with a recorded version; others have no ``Last-Modified``."""
MAX_OCTETS = 75
"""Maximum length of a line in octets, without its line break (section 3.1)."""
EVENTS_PER_PART = 100
"""Number of events that are encoded at a time, in a few milliseconds."""
PART_BYTES = 32 * 1024
"""Size of a part in bytes, after which the reactor runs other work."""
_DAY = 86_400
_NAMESPACE = UUID("7c8a1f0e-5f0c-4c53-9d55-2f1f6f0f9b6a")
_ESCAPED = re.compile(r"[\\;,]")
# Characters that a line must not contain (section 3.1, CONTROL), and characters that some clients
# read as a line break.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def text(value: str) -> str:
    """Return text as a value of the type TEXT (section 3.3.11)."""
    value = _CONTROLS.sub(" ", value.replace("\r\n", "\n"))
    return _ESCAPED.sub(r"\\\g<0>", value).replace("\n", "\\n")


def time(seconds: int) -> str:
    """Return a DATE-TIME in UTC (section 3.3.5).

    :param seconds: since 1970.
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y%m%dT%H%M%SZ}"


def fold_lines(lines: Iterable[str]) -> bytes:
    """Return content lines, each ``<name>:<value>``, encoded and folded (section 3.1)."""
    return b"".join(_folded(line.encode()) for line in lines)


def _folded(line: bytes) -> bytes:
    """Return a line folded into parts of at most ``MAX_OCTETS``, without splitting characters."""
    parts, max_octets = [], MAX_OCTETS
    while len(line) > max_octets:
        end = max_octets
        while line[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(line[:end])
        line = line[end:]
        # The space at the start of each further part counts towards the limit.
        max_octets = MAX_OCTETS - 1
    return b"\r\n ".join([*parts, line]) + b"\r\n"


@frozen(kw_only=True)
class _Version:
    """Version of a calendar.

    :ivar modified_at: the value of ``Last-Modified``: seconds since 1970.
    :ivar seen_at: when the version was first requested: seconds since 1970.
    """

    etag: str
    modified_at: int | None
    seen_at: int


@define(eq=False, kw_only=True)
class Calendars:
    """Calendars of a store, and their versions.

    :param clock: schedules other work between the parts of a calendar.
    :param now: returns the wall-clock time: seconds since 1970.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _versions: OrderedDict[str | None, _Version] = field(factory=OrderedDict, init=False)

    async def of(self, request: IRequest, target: str | None) -> bytes:
        """Respond with the calendar of a name, or of all tasks.

        :param target: the name; ``None`` for all tasks.
        :raises Problem: when no task has the name.
        """
        parse_query(request)
        agenda = await self._agenda(target)
        if agenda is None:
            return await self.at(request, target)
        return await self._respond(request, agenda, target)

    async def at(self, request: IRequest, path: str | None) -> bytes:
        """Respond with the calendar at a path that is not the name of a task.

        :param path: the path after its prefix.
        :raises Problem: when the path does not end in ``.ics``, or no task has the name before
            that.
        """
        if path is not None and path.endswith(ICS):
            name = path.removesuffix(ICS)
            agenda = await self._agenda(name)
            if agenda is not None:
                parse_query(request)
                return await self._respond(request, agenda, name)
        raise await no_task(self._store, path or "", access_of(request).prefix)

    async def _agenda(self, task_name: str | None) -> CalendarData | None:
        now = int(self._now())
        until, since = now + AHEAD_DAYS * _DAY, now - BACK_DAYS * _DAY
        return await self._store.read(
            stats.calendar, task_name, until=until, failed_since=since, limit=MAX_EVENTS
        )

    async def _respond(
        self, request: IRequest, agenda: CalendarData, task_name: str | None
    ) -> bytes:
        parts = []
        for part in calendar(agenda, task_name, __version__):
            parts.append(part)
            if len(part) > PART_BYTES:
                await deferLater(self._clock, 0)
        body = b"".join(parts)
        etag = f'"{sha256(body).hexdigest()[:32]}"'
        return calendar_response(request, body, etag, self._modified_at(task_name, etag))

    def _modified_at(self, task_name: str | None, etag: str) -> int | None:
        """Return the time when the version of a calendar was first requested.

        The times in a calendar do not suffice for this, because a deleted task leaves no trace. The
        result is ``None`` if another version was requested in the same second.
        """
        now = int(self._now())
        known = self._versions.pop(task_name, None)
        if known is None or known.etag != etag:
            modified_at = None if known and known.seen_at >= now else now
            known = _Version(etag=etag, modified_at=modified_at, seen_at=now)
        elif known.modified_at is None and known.seen_at < now:
            known = evolve(known, modified_at=now)
        self._versions[task_name] = known
        if len(self._versions) > MAX_VERSIONS:
            self._versions.popitem(last=False)
        return known.modified_at


_END = ("END:VCALENDAR",)
# A calendar must have at least one component (RFC 5545, section 3.6).
_PLACEHOLDER = (
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
    """Yield an encoded calendar in parts, each of which takes a few milliseconds.

    :param task_name: the name of all its tasks; ``None`` for tasks of any name.
    :param version: the version of callme.
    """
    yield fold_lines(_head(agenda, task_name, version))
    events = [*agenda.failed, *agenda.scheduled]
    for begin in range(0, len(events), EVENTS_PER_PART):
        part = events[begin : begin + EVENTS_PER_PART]
        yield fold_lines(line for event in part for line in _event(event))
    yield fold_lines(_END if events else (*_PLACEHOLDER, *_END))


def _head(agenda: CalendarData, task_name: str | None, version: str) -> Iterator[str]:
    name = text("callme" if task_name is None else f"callme: {task_name}")
    description = text(_calendar_description(agenda))
    yield from ("BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:-//callme//callme {version}//EN")
    yield "CALSCALE:GREGORIAN"
    # Many clients know only the property from before RFC 7986.
    yield from (f"NAME:{name}", f"X-WR-CALNAME:{name}")
    yield from (f"DESCRIPTION:{description}", f"X-WR-CALDESC:{description}")
    yield from (f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}", f"X-PUBLISHED-TTL:{REFRESH}")


def _calendar_description(agenda: CalendarData) -> str:
    description = (
        f"Tasks scheduled in the next {AHEAD_DAYS} days and tasks that failed in the last "
        f"{BACK_DAYS} days: at most {MAX_EVENTS} of each."
    )
    if agenda.more_scheduled:
        last = agenda.scheduled[-1].task.due_at
        assert last is not None
        description += f" More are scheduled: only those up to {rfc3339(last * 1000)} are included."
    if agenda.more_failed:
        first = agenda.failed[-1].task.finished_at_ms
        assert first is not None
        description += f" More failed: only those since {rfc3339(first)} are included."
    return description


def _event(event: Event) -> Iterator[str]:
    task = event.task
    failed = task.state is State.FAILED
    changed = time(event.changed_at_ms // 1000)
    begins = task.definition.trigger_at if failed or task.due_at is None else task.due_at
    yield "BEGIN:VEVENT"
    # A task that is put again or rescheduled is a new event, because its attempts restart.
    yield f"UID:{uuid5(_NAMESPACE, f'{task.key} {event.planned_at_ms}')}"
    # In a calendar without METHOD, both properties have the same meaning (section 3.8.7.2).
    yield from (f"DTSTAMP:{changed}", f"LAST-MODIFIED:{changed}")
    yield f"CREATED:{time(task.created_at_ms // 1000)}"
    # The number must grow with each change of the event (section 3.8.7.4).
    yield f"SEQUENCE:{task.attempts_used + failed}"
    yield from (f"DTSTART:{time(begins)}", "DURATION:PT1M")
    yield f"SUMMARY:{text(_summary(task))}"
    yield f"DESCRIPTION:{text(_description(event))}"
    yield f"CATEGORIES:{task.state.value}"
    # A failure is not CANCELLED, because many clients hide cancelled events.
    yield from ("STATUS:CONFIRMED", "TRANSP:TRANSPARENT", "END:VEVENT")


def _summary(task: Task) -> str:
    name, allowed = task.definition.task_name, 1 + task.definition.retry
    if task.state is State.FAILED:
        return f"{name}: failed" + (f" ({task.reason.value})" if task.reason else "")
    if task.attempts_used:
        return f"{name}: attempt {task.attempts_used + 1} of {allowed}"
    return name


def _description(event: Event) -> str:
    task = event.task
    definition = task.definition
    lines = [
        str(task.key),
        f"{definition.callback_method} to {event.host}",
        f"{task.attempts_used} of {1 + definition.retry} attempts used",
    ]
    return "\n".join([*lines, task.detail] if task.detail else lines)
