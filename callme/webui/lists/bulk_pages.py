"""Handlers of the pages for actions on many tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define, evolve
from twisted.web.server import Request

from ...api.requests import describe_filters, parse_spread
from ...api.task_service import Bulk, Move, TaskService
from ...core.times import Key
from ...errors import Invalid, InvalidValue
from ...server.auth import Author, author_of, check_name
from ...server.paths import DELETE_MANY, FIND, RESCHEDULE_MANY
from ...server.problem import Problem
from ...store import tasks as task_store
from ...store.database import Store
from ...store.listing.counts import MAX_COUNTED, Count, count_tasks
from ...store.listing.selection import Selection
from ..layout import Viewer
from ..session import MAX_SELECTED, check_csrf, check_may_change, parse_selection
from ..task.new_task import ACTION_FIELD, PREVIEW
from ..task.time_fields import TimeInput, meaning_of
from .bulk import (
    CONFIRMED,
    EXPECTED,
    MAX_PREVIEW,
    SPREAD,
    BulkConfirmation,
    MovePreview,
    Target,
    has_many_more,
    render_confirmation,
)
from .filters import read_filters
from .pages import MainPart
from .task_list import SELECTED, key_of


@define(eq=False, kw_only=True)
class BulkPages:
    """The pages for actions on many tasks.

    :param tasks: performs the actions.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _tasks: TaskService
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
                if path == RESCHEDULE_MANY and fields.get(ACTION_FIELD) == PREVIEW:
                    preview = await self._preview_move(content.target, fields, author_of(request))
                    content = evolve(content, given=fields, preview=preview)
                else:
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
            raise Problem(400, "no task is selected: select tasks in the list, or filter it")
        return Target(filters=filters, keys=keys)

    async def _preview(self, target: Target, path: str, viewer: Viewer) -> BulkConfirmation:
        if target.keys:
            found = await self._store.read(task_store.get_summaries, target.keys)
            count = Count(len(found))
            # Tasks that no longer exist are omitted.
            target = evolve(target, keys=[task.key for task in found])
        else:
            values = target.filters.values
            count = await self._store.read(count_tasks, **values)
            page = await self._store.read(task_store.list_page, limit=MAX_PREVIEW, **values)
            assert page is not None
            found = page.tasks
        return BulkConfirmation(
            path=path,
            target=target,
            count=count,
            tasks=found[:MAX_PREVIEW],
            viewer=viewer,
            now=self._now(),
        )

    async def _preview_move(
        self, target: Target, fields: Mapping[str, str], by: Author
    ) -> MovePreview:
        now = self._now()
        meaning, move = meaning_of(TimeInput.of(fields), now), _move_of(fields, now)
        bulk = evolve(_bulk_of(target), is_dry_run=True)
        result = await self._tasks.reschedule_all(bulk, move, by=by)
        return MovePreview(
            meaning=meaning,
            moved=len(result.moved),
            skipped=len(result.skipped),
            last_at=max((new.trigger_at for _, new in result.moved), default=0),
        )

    async def _act(self, content: BulkConfirmation, fields: Mapping[str, str], by: Author) -> str:
        if has_many_more(content.count, fields.get(EXPECTED, "")):
            raise Problem(409, "many more tasks match now: confirm again to continue")
        target = content.target
        bulk = _bulk_of(target)
        if content.path == DELETE_MANY:
            deleted = await self._tasks.delete_all(bulk, by=by)
            verb, changed, skipped = "deleted", deleted.count, len(deleted.running)
        else:
            moved = await self._tasks.reschedule_all(bulk, _move_of(fields, self._now()), by=by)
            verb, changed, skipped = "rescheduled", len(moved.moved), len(moved.skipped)
        result = {"done": verb, "changed": str(changed), "skipped": str(skipped)}
        return FIND + target.filters.query(**result)


def _bulk_of(target: Target) -> Bulk:
    if target.keys:
        return Bulk(keys=target.keys, limit=MAX_SELECTED)
    filters = target.filters
    return Bulk(
        selection=Selection(**filters.values),
        filters=describe_filters(filters.api_query(), filters.labels),
        limit=MAX_COUNTED,
    )


def _move_of(fields: Mapping[str, str], now: float) -> Move:
    trigger_at = meaning_of(TimeInput.of(fields), now).trigger_at
    spread = fields.get(SPREAD, "").strip()
    try:
        minutes = parse_spread(None if spread in ("", "0") else spread, trigger_at)
    except Problem as problem:
        # The error concerns a field of the form, not a parameter of the query string.
        raise Invalid(problem.errors) from None
    return Move(trigger_at=trigger_at, spread=minutes, include_all_states=True)
