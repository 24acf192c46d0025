"""Actions on many tasks: selected ones, or all that filters match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from attrs import define, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ...api.task_service import TaskService
from ...core.times import MINUTE, Key
from ...server.auth import Author
from ...server.problem import Problem
from ...store import tasks as task_store
from ...store.database import Store
from ...store.listing.counts import MAX_COUNTED
from .bulk import Target

_AT_ONCE = 100
"""Tasks that are changed at the same time: the store commits them together."""
_PAGE = 1_000
"""Tasks that are found at the same time."""
_MAX_TRIES = 60
"""Minutes, from the wanted one on, that a task tries where other tasks of its name stand."""


@frozen
class Done:
    """The result of an action.

    :ivar changed: the number of tasks that were rescheduled or deleted.
    :ivar skipped: the number of those that were not: running ones, for example.
    """

    changed: int
    skipped: int


@define(eq=False, kw_only=True)
class BulkActions:
    """Actions on at most :data:`callme.store.listing.counts.MAX_COUNTED` tasks.

    :param tasks: performs the actions on each task.
    """

    _store: Store
    _tasks: TaskService

    async def reschedule(
        self, target: Target, trigger_at: int, spread_minutes: int, by: Author
    ) -> Done:
        """Move tasks to a minute, or to one of those from it on.

        Where several have one name, each moves to a minute of its own.

        :param spread_minutes: the number of minutes over which the tasks are spread evenly.
        :param by: the client that asks for it.
        """
        keys = await self._keys(target)
        taken: Counter[tuple[str, int]] = Counter()
        moves = []
        for number, key in enumerate(keys):
            minute = trigger_at + MINUTE * (number * spread_minutes // len(keys))
            place = (key.task_name, minute)
            moves.append((key, minute + MINUTE * taken[place]))
            taken[place] += 1
        return await _count([partial(self._move, *move, by) for move in moves])

    async def _move(self, key: Key, trigger_at: int, by: Author) -> bool:
        """Move a task to the first free minute from one on; return whether it was moved."""
        for number in range(_MAX_TRIES):
            minute = trigger_at + MINUTE * number
            try:
                moved = await self._tasks.reschedule(key, minute, include_all_states=True, by=by)
            except Problem as problem:
                # 409: another task stands there.
                if problem.status != 409:
                    return False
            else:
                return bool(moved.moved)
        return False

    async def delete(self, target: Target, by: Author) -> Done:
        """Delete tasks.

        :param by: the client that asks for it.
        """
        keys = await self._keys(target)
        return await _count([partial(self._delete, key, by) for key in keys])

    async def _delete(self, key: Key, by: Author) -> bool:
        try:
            await self._tasks.delete(key, by=by)
        except Problem:
            return False
        return True

    async def _keys(self, target: Target) -> Sequence[Key]:
        if target.keys:
            return target.keys
        keys: list[Key] = []
        start_from: Key | None = None
        while len(keys) < MAX_COUNTED:
            page = await self._store.read(
                task_store.list_page, start_from=start_from, limit=_PAGE, **target.filters.values
            )
            assert page is not None
            keys += [task.key for task in page.tasks]
            start_from = page.next
            if start_from is None:
                break
        return keys[:MAX_COUNTED]


async def _count(
    work: Sequence[Callable[[], Coroutine[Deferred[Any], Any, bool]]],
) -> Done:
    """Do pieces of work, some at the same time; count those that return true."""
    changed = 0
    for begin in range(0, len(work), _AT_ONCE):
        chunk = [Deferred.fromCoroutine(one()) for one in work[begin : begin + _AT_ONCE]]
        try:
            changed += sum(await defer.gatherResults(chunk, consumeErrors=True))
        except defer.FirstError as error:
            error.subFailure.raiseException()
    return Done(changed, len(work) - changed)
