"""Handlers of the pages for actions on many tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define, evolve
from twisted.web.server import Request

from ...core.times import Key
from ...errors import FieldError, Invalid, InvalidValue, quoted
from ...server.auth import Author, author_of, check_name
from ...server.paths import DELETE_MANY, FIND
from ...server.problem import Problem
from ...store import tasks as task_store
from ...store.database import Store
from ...store.listing.counts import Count, count_tasks
from ..layout import Viewer
from ..session import check_csrf, check_may_change, parse_selection
from ..task.time_fields import TimeInput, meaning_of
from .bulk import (
    CONFIRMED,
    EXPECTED,
    MAX_PREVIEW,
    MAX_SPREAD,
    SPREAD,
    BulkConfirmation,
    Target,
    has_many_more,
    render_confirmation,
)
from .bulk_actions import BulkActions
from .filters import read_filters
from .pages import MainPart
from .task_list import SELECTED, key_of


@define(eq=False, kw_only=True)
class BulkPages:
    """The pages for actions on many tasks.

    :param actions: performs the actions.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _actions: BulkActions
    _now: Callable[[], float]

    async def confirm(self, request: Request, path: str, viewer: Viewer) -> MainPart | str:
        """Return the page that confirms an action; or perform it, and return the next path.

        :param path: that of the action.
        """
        check_may_change(viewer)
        fields: Mapping[str, str] = {}
        selected: Sequence[str] = ()
        if request.method == b"POST":
            fields, selected = parse_selection(request, SELECTED)
            check_csrf(request, fields)
        content = await self._preview(self._target(request, selected), path, viewer)
        status = 200
        if CONFIRMED in fields:
            try:
                return await self._act(content, fields, author_of(request))
            except (Problem, Invalid) as error:
                problem = error if isinstance(error, Problem) else Problem.of(error)
                errors = {one.pointer.strip("/"): one.detail for one in problem.errors}
                content = evolve(content, given=fields, errors=errors or {"": problem.detail})
                status = problem.status
        title, main = content.question, render_confirmation(content)
        return MainPart(title=title, content=main, status=status)

    def _target(self, request: Request, selected: Sequence[str]) -> Target:
        try:
            keys = [key_of(value) for value in selected]
        except InvalidValue as error:
            raise Problem(400, str(error)) from None
        for key in keys:
            check_name(request, key)
        filters = read_filters(request, self._now())
        if isinstance(filters, Key):
            raise Problem(400, "the name is a key: open the page of the task to change it alone")
        if filters.errors:
            raise Problem(400, "; ".join(filters.errors.values()))
        if not keys and not filters.narrows:
            raise Problem(400, "no task is selected: select some of the list, or filter it")
        return Target(filters=filters, keys=keys)

    async def _preview(self, target: Target, path: str, viewer: Viewer) -> BulkConfirmation:
        if target.keys:
            found = await self._store.read(task_store.get_summaries, target.keys)
            count = Count(len(found))
            # Tasks that have gone since are left out.
            target = evolve(target, keys=[task.key for task in found])
        else:
            values = target.filters.values
            count = await self._store.read(count_tasks, **values)
            page = await self._store.read(task_store.list_page, limit=MAX_PREVIEW, **values)
            assert page is not None
            found = page.tasks
        return BulkConfirmation(
            path=path, target=target, count=count, tasks=found[:MAX_PREVIEW], viewer=viewer
        )

    async def _act(self, content: BulkConfirmation, fields: Mapping[str, str], by: Author) -> str:
        if has_many_more(content.count, fields.get(EXPECTED, "")):
            raise Problem(409, "many more tasks match now: confirm again to continue")
        target = content.target
        if content.path == DELETE_MANY:
            verb, done = "deleted", await self._actions.delete(target, by)
        else:
            trigger_at, spread = _minute_of(fields, self._now()), _parse_spread(fields)
            verb, done = (
                "rescheduled",
                await self._actions.reschedule(target, trigger_at, spread, by),
            )
        result = {"done": verb, "changed": str(done.changed), "skipped": str(done.skipped)}
        return FIND + target.filters.query(**result)


def _minute_of(fields: Mapping[str, str], now: float) -> int:
    return meaning_of(TimeInput.of(fields), now).trigger_at


def _parse_spread(fields: Mapping[str, str]) -> int:
    text = fields.get(SPREAD, "").strip() or "0"
    if not text.isdecimal() or len(text) > 6 or int(text) > MAX_SPREAD:
        detail = f"is {quoted(text)}: expected a number of minutes from 0 to {MAX_SPREAD:,}"
        raise Invalid([FieldError(f"/{SPREAD}", detail)])
    return int(text)
