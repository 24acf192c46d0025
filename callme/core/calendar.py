"""Tasks as a calendar shows them: what is scheduled, what failed lately (RFC 5545, RFC 7986).

A calendar may be read by another company's servers. It tells names, minutes, hosts and what
went wrong, and nothing that may be a secret: no payload, no headers, no URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID, uuid5

from attrs import frozen

from .ical import text, time, written
from .task import State, Task
from .trigger import rfc3339

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


@frozen
class Event:
    """A task in a calendar.

    :ivar changed_at: when it last changed, milliseconds since 1970.
    :ivar last_attempt: the number of its last attempt; 0 before the first.
    :ivar host: the ``host:port`` that it calls.
    """

    task: Task
    changed_at: int
    last_attempt: int
    host: str


@frozen
class Agenda:
    """What a calendar is made of.

    :ivar scheduled: the next ones first.
    :ivar failed: the latest first.
    :ivar more_scheduled: whether there are more than those.
    :ivar more_failed: the same of the failed ones.
    """

    scheduled: Sequence[Event] = ()
    failed: Sequence[Event] = ()
    more_scheduled: bool = False
    more_failed: bool = False


def calendar(agenda: Agenda, task_name: str | None, version: str) -> Iterator[bytes]:
    """Yield a calendar as it is sent, a few milliseconds' work at a time.

    :param task_name: the name that all its tasks have; ``None`` where it is of any.
    :param version: callme's.
    """
    yield written(_head(agenda, task_name, version))
    events = [*agenda.failed, *agenda.scheduled]
    for begin in range(0, len(events), SLICE):
        yield written(line for event in events[begin : begin + SLICE] for line in _event(event))
    yield written(_END if events else (*_NOTHING, *_END))


def _head(agenda: Agenda, task_name: str | None, version: str) -> Iterator[str]:
    name = text("callme" if task_name is None else f"callme: {task_name}")
    description = text(_described(agenda))
    yield from ("BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:-//callme//callme {version}//EN")
    yield "CALSCALE:GREGORIAN"
    # What RFC 7986 has a name for, many still know by the older one.
    yield from (f"NAME:{name}", f"X-WR-CALNAME:{name}")
    yield from (f"DESCRIPTION:{description}", f"X-WR-CALDESC:{description}")
    yield from (f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}", f"X-PUBLISHED-TTL:{REFRESH}")


def _described(agenda: Agenda) -> str:
    told = (
        f"What is scheduled in the next {AHEAD_DAYS} days and what failed in the last "
        f"{BACK_DAYS}: at most {MAX_EVENTS} tasks of each."
    )
    if agenda.more_scheduled:
        last = agenda.scheduled[-1].task.due_at
        assert last is not None
        told += f" More are scheduled: only those up to {rfc3339(last * 1000)} are here."
    if agenda.more_failed:
        first = agenda.failed[-1].task.finished_at
        assert first is not None
        told += f" More have failed: only those since {rfc3339(first)} are here."
    return told


def _event(event: Event) -> Iterator[str]:
    task = event.task
    failed = task.state is State.FAILED
    changed = time(event.changed_at // 1000)
    begins = task.definition.trigger_at if failed or task.due_at is None else task.due_at
    yield "BEGIN:VEVENT"
    yield f"UID:{uuid5(_NAMESPACE, str(task.key))}"
    # Without a METHOD the two mean the same (RFC 5545, section 3.8.7.2).
    yield from (f"DTSTAMP:{changed}", f"LAST-MODIFIED:{changed}")
    yield f"CREATED:{time(task.created_at // 1000)}"
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
