"""Lists of tasks as calendars, for the apps that read such."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from .. import __version__
from ..core.calendar import AHEAD_DAYS, BACK_DAYS, MAX_EVENTS, Agenda, calendar
from ..core.errors import shown
from ..problem import Problem
from ..store.port import Store
from .decoding import parse_query
from .encoding import answer_calendar

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
    raise Problem(404, f"there is no task named {shown(target)}")


async def _agenda(store: Store, task_name: str | None, now: float) -> Agenda | None:
    until, since = int(now) + AHEAD_DAYS * _DAY, int(now) - BACK_DAYS * _DAY
    return await store.agenda(task_name, until, since, MAX_EVENTS)


async def _answer(
    request: IRequest, agenda: Agenda, task_name: str | None, clock: IReactorTime
) -> bytes:
    parts = []
    for part in calendar(agenda, task_name, __version__):
        parts.append(part)
        if len(part) > _LONG:
            await deferLater(clock, 0)
    return answer_calendar(request, b"".join(parts))
