"""Actions on many tasks: selected ones, or all that filters match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import define, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ...api.requests import describe_filters
from ...api.task_service import Bulk, Move, TaskService
from ...core.times import MINUTE, Key
from ...server.auth import Author
from ...server.problem import Problem
from ...store.listing.counts import MAX_COUNTED
from ...store.listing.selection import Selection
from .bulk import Target

_AT_ONCE = 100
"""Tasks that are changed at the same time: the store commits them together."""
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

    :param tasks: performs the actions.
    """

    _tasks: TaskService

    async def reschedule(
        self, target: Target, trigger_at: int, spread_minutes: int, by: Author
    ) -> Done:
        """Move tasks to a minute, or to one of those from it on.

        Where several have one name, each moves to a minute of its own.

        :param spread_minutes: the number of minutes over which the tasks are spread evenly.
        :param by: the client that asks for it.
        """
        move = Move(trigger_at=trigger_at, spread=spread_minutes, include_all_states=True)
        if not target.keys:
            result = await self._tasks.reschedule_all(_bulk_of(target), move, by=by)
            return Done(len(result.moved), len(result.skipped))
        moves = _apart(target.keys, move.minutes(len(target.keys)))
        return await _count([partial(self._move, *pair, by) for pair in moves])

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
        if not target.keys:
            result = await self._tasks.delete_all(_bulk_of(target), by=by)
            return Done(result.count, len(result.running))
        return await _count([partial(self._delete, key, by) for key in target.keys])

    async def _delete(self, key: Key, by: Author) -> bool:
        try:
            await self._tasks.delete(key, by=by)
        except Problem:
            return False
        return True


def _apart(keys: Sequence[Key], minutes: Sequence[int]) -> Iterator[tuple[Key, int]]:
    """Yield each key with its minute, or a later one if another task of its name has that."""
    taken: Counter[tuple[str, int]] = Counter()
    for key, minute in zip(keys, minutes, strict=True):
        place = (key.task_name, minute)
        yield key, minute + MINUTE * taken[place]
        taken[place] += 1


def _bulk_of(target: Target) -> Bulk:
    filters = target.filters
    return Bulk(
        selection=Selection(**filters.values),
        filters=describe_filters(filters.api_query(), filters.labels),
        limit=MAX_COUNTED,
    )


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
