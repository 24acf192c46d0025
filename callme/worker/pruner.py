"""Finished tasks are forgotten after some days, a few at a time."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import quoted
from ..store import queue
from ..store.database import Store
from ..store.interface import StoreUnavailable

log = Logger(namespace="callme")

BATCH = 500
"""How many finished tasks one transaction forgets."""
PAUSE = 0.1
"""Seconds between two such transactions: other writes have the database meanwhile."""
DAY = 86_400


@define(eq=False)
class Pruner:
    """Forgets what finished long ago.

    :param now: the wall clock: seconds since 1970.
    :param days: how long a finished task is kept; 0 keeps it for ever.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _days: int
    _purging: Deferred[None] | None = field(default=None, init=False)

    def purge(self) -> None:
        """Forget what is old enough, unless that is being done already; returns at once."""
        if self._days and self._purging is None:
            self._purging = Deferred.fromCoroutine(self._purge())
            self._purging.addErrback(self._purge_failed).addCallback(self._purge_ended)

    async def _purge(self) -> None:
        before = self._now() - self._days * DAY
        while await self._store.write(queue.purge, before, BATCH) == BATCH:
            await deferLater(self._clock, PAUSE)

    def _purge_failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            log.error("purging failed: {error}", error=quoted(str(failure.value), 300))
        elif not failure.check(CancelledError):
            log.failure("purging failed", failure)

    def _purge_ended(self, _: None) -> None:
        self._purging = None

    def stop(self) -> None:
        """Leave the rest for another time."""
        if self._purging is not None:
            self._purging.cancel()
