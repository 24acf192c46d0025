"""Handlers of the pages about many tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.template import tags

from ...api.hosts import HostService
from ...api.requests import parse_query, parse_start_from
from ...core.task import State
from ...core.times import Key
from ...errors import Invalid, InvalidValue
from ...hosts.settings import parse_host, parse_settings
from ...reports.single_flight import SingleFlight
from ...server.auth import author_of
from ...server.paths import HOSTS, TASK, url_for
from ...server.problem import Problem
from ...store import tasks as task_store
from ...store.database import Store
from ...store.listing.activity import FailureGroups, failure_groups
from ...store.listing.counts import Count, count_states
from ...store.stats import task_counts
from ..layout import Viewer
from ..session import check_csrf, check_may_change, parse_form
from ..widgets import Renderable, flash, pluralize
from .failures import render_groups
from .filters import Filters, filter_form, read_filters
from .hosts import MAX_ROWS as MAX_HOSTS
from .hosts import HostForm, HostTable, changes_of, render_host_form, render_hosts
from .task_list import ALL, MAX_RESULTS, SELECT, TaskList, render_list, title_of

COST_FACTOR = 20
"""How many times as long as its read took a count or a group of many tasks stays fresh."""
MAX_GROUPS_AGE_SECONDS = 10.0
"""Maximum time in seconds for which groups stay fresh: operators act on them."""
WAIT_SECONDS = 0.06
"""Maximum time in seconds that a list waits for fresh counts of all tasks."""


@frozen(kw_only=True)
class MainPart:
    """The main part of a page.

    :ivar status: the status of the response.
    """

    title: str
    content: Renderable
    status: int = 200


RESULT = ("done", "changed", "skipped")
"""The parameters of a list that contain the result of an action."""


def _result(parameters: Mapping[str, str]) -> Renderable:
    """Return the message about an action on many tasks, if one has just been completed."""
    verb, *numbers = (parameters.get(name, "") for name in RESULT)
    if verb not in ("rescheduled", "deleted") or not all(map(_is_number, numbers)):
        return ""
    changed, skipped = map(int, numbers)
    rest = f" {pluralize(skipped, 'task')} could not be {verb}." if skipped else ""
    return flash(f"{pluralize(changed, 'task')} {'was' if changed == 1 else 'were'} {verb}.{rest}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _host_of(path: str) -> str:
    try:
        return parse_host(path)
    except InvalidValue as error:
        raise Problem(404, str(error)) from None


@define(eq=False, kw_only=True)
class ListPages:
    """The pages about many tasks.

    :param hosts: performs the actions on hosts.

    :param clock: schedules other work while a page is rendered.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _hosts: HostService
    _clock: IReactorTime
    _now: Callable[[], float]
    _totals: SingleFlight[Mapping[State, Count]] = field(init=False)
    _groups: SingleFlight[FailureGroups] = field(init=False)

    def __attrs_post_init__(self) -> None:
        ttl = lambda cost: COST_FACTOR * cost  # noqa: E731
        self._totals = SingleFlight(fetch=self._count_all, ttl=ttl, clock=self._clock)
        recent = lambda cost: min(MAX_GROUPS_AGE_SECONDS, ttl(cost))  # noqa: E731
        self._groups = SingleFlight(fetch=self._group_failures, ttl=recent, clock=self._clock)

    async def find(self, request: IRequest, viewer: Viewer) -> MainPart | str:
        """Return the tasks that filters match, or the path of the task that a key names."""
        now = self._now()
        filters = read_filters(request, now, ("start_from", SELECT, *RESULT))
        if isinstance(filters, Key):
            return url_for(TASK, filters)
        if filters.errors:
            head = tags.div(tags.h1("Tasks"), class_="head")
            return MainPart(title="Tasks", content=[head, filter_form(filters)], status=400)
        start_from = parse_start_from(filters.more.get("start_from"), None)
        listing: dict[str, Any] = {**filters.values, "limit": MAX_RESULTS, "by_due": filters.by_due}
        page = await self._store.read(task_store.list_page, start_from=start_from, **listing)
        assert page is not None
        previous = None
        if start_from is not None:
            query = task_store.previous_page
            previous = await self._store.read(query, start_from=start_from, **listing)
        content = TaskList(
            filters=filters,
            page=page,
            counts=await self._counts(filters),
            start_from=start_from,
            previous=previous,
            is_selected=filters.more.get(SELECT) == ALL,
            viewer=viewer,
            now=now,
            flash=_result(filters.more),
        )
        return MainPart(title=title_of(filters), content=render_list(content, self._clock))

    async def _counts(self, filters: Filters) -> Mapping[State, Count]:
        """Return the number of tasks of each state that match the other filters."""
        if filters.has_more_than_state:
            return await self._store.read(count_states, **filters.values)
        return await self._totals.get_within(WAIT_SECONDS) or {}

    async def _count_all(self) -> Mapping[State, Count]:
        counts = dict.fromkeys(State, Count(0))
        for (state, _), number in (await self._store.read(task_counts)).items():
            counts[state] += Count(number)
        return counts

    async def hosts(self, request: IRequest, viewer: Viewer) -> MainPart:
        """Return a page of hosts."""
        parameters = parse_query(request, ("start_from", "done"))
        now = self._now()
        page = await self._hosts.read(parameters.get("start_from", ""), MAX_HOSTS, now)
        done = "The settings were saved." if parameters.get("done") == "saved" else ""
        table = HostTable(
            page=page, results=self._hosts.results, viewer=viewer, now=now, flash=done
        )
        return MainPart(title="Hosts", content=render_hosts(table, self._clock))

    async def host(self, request: Request, path: str, viewer: Viewer) -> MainPart | str:
        """Return the form for a host's settings; or save them, and return the next path."""
        check_may_change(viewer)
        host, now = _host_of(path), self._now()
        form = HostForm(settings=await self._hosts.settings(host), viewer=viewer, now=now)
        status = 200
        if request.method == b"POST":
            fields = parse_form(request)
            check_csrf(request, fields)
            try:
                changes = parse_settings(changes_of(fields), now)
                await self._hosts.change(host, changes, by=author_of(request), now=now)
                return f"{HOSTS}?done=saved"
            except Invalid as error:
                errors = {one.pointer.strip("/"): one.detail for one in error.errors}
                form, status = evolve(form, given=fields, errors=errors), 422
        title = f"Pause or limit {host}"
        return MainPart(title=title, content=render_host_form(form), status=status)

    async def failures(self, request: IRequest, viewer: Viewer) -> MainPart:
        """Return the failures in groups."""
        parse_query(request)
        content = render_groups(await self._groups.get(), viewer, self._now())
        return MainPart(title="Failures in groups", content=content)

    async def _group_failures(self) -> FailureGroups:
        return await self._store.read(failure_groups)
