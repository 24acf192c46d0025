"""The pruner, which deletes old tasks in small batches."""

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
"""Pause between two transactions in seconds, which leaves time for other writes."""
SECONDS_PER_DAY = 86_400
OUTCOME_SECONDS = 25 * 3600
"""Retention of the outcomes of removed tasks in seconds; the history covers a day."""


@define(eq=False, kw_only=True)
class Pruner:
    """Pruner of finished tasks.

    :param clock: schedules timers.
    :param now: returns the wall-clock time: seconds since 1970.
    :param retention_days: the retention of finished tasks in days; 0 stands for indefinitely.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _retention_days: int

    async def run(self) -> None:
        """Delete the tasks that are old by now; the next run deletes those that are left."""
        now = self._now()
        # With an indefinite retention, only the outcomes of removed tasks are deleted.
        days = self._retention_days
        finished_before = now - days * SECONDS_PER_DAY if days else 0.0
        limits = (finished_before, PURGE_BATCH, now - OUTCOME_SECONDS)
        while await self._store.write(queue.purge, *limits) == PURGE_BATCH:
            await deferLater(self._clock, PAUSE_SECONDS)
