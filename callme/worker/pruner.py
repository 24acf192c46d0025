"""The pruner: it deletes old tasks, in small batches."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..store import queue
from ..store.database import Store

PURGE_BATCH = 500
"""Maximum number of tasks that one transaction deletes."""
PAUSE_SECONDS = 0.1
"""Pause between such transactions, in which other writes get their turn."""
SECONDS_PER_DAY = 86_400
OUTCOME_SECONDS = 25 * 3600
"""How long the outcome of a rescheduled or deleted task is kept: the history covers a day."""


@define(eq=False, kw_only=True)
class Pruner:
    """The pruner of finished tasks.

    :param clock: sets timers.
    :param now: the wall clock, seconds since 1970.
    :param retention_days: how long finished tasks are kept, in days; 0 keeps them indefinitely.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _retention_days: int

    async def run(self) -> None:
        """Delete the tasks that are old by now; the next run deletes those that are left."""
        now = self._now()
        # Without a retention, only the outcomes of removed tasks are deleted.
        days = self._retention_days
        finished_before = now - days * SECONDS_PER_DAY if days else 0.0
        limits = (finished_before, PURGE_BATCH, now - OUTCOME_SECONDS)
        while await self._store.write(queue.purge, *limits) == PURGE_BATCH:
            await deferLater(self._clock, PAUSE_SECONDS)
