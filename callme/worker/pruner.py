"""The pruner: it deletes old tasks, in small batches."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..store import queue
from ..store.database import Store
from ..store.interface import log_store_failure

log = Logger(namespace="callme")

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
    _purging: Deferred[None] | None = field(default=None, init=False)

    def purge(self) -> None:
        """Begin to delete old tasks unless that is in progress; return at once."""
        if self._purging is None:
            self._purging = Deferred.fromCoroutine(self._purge())
            self._purging.addErrback(self._purge_failed).addCallback(self._purge_ended)

    async def _purge(self) -> None:
        now = self._now()
        # Without a retention, only the outcomes of removed tasks are deleted.
        days = self._retention_days
        finished_before = now - days * SECONDS_PER_DAY if days else 0.0
        limits = (finished_before, PURGE_BATCH, now - OUTCOME_SECONDS)
        while await self._store.write(queue.purge, *limits) == PURGE_BATCH:
            await deferLater(self._clock, PAUSE_SECONDS)

    def _purge_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log_store_failure(log, "purging failed", failure)

    def _purge_ended(self, _: None) -> None:
        self._purging = None

    def stop(self) -> None:
        """Stop; the next purge deletes the rest."""
        if self._purging is not None:
            self._purging.cancel()
