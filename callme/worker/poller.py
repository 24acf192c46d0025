"""Between two ticks: what other daemons on one database put, give back, or leave as they die."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import quoted
from ..store import queue
from ..store.database import Store
from ..store.interface import HEARTBEAT_SECONDS, StoreUnavailable
from .dispatcher import Dispatcher

log = Logger(namespace="callme")


@define(eq=False)
class Poller:
    """Looks every so often, and tells the others that this daemon lives.

    :param now: the wall clock: seconds since 1970.
    :param clock: what sets timers.
    :param seconds: between two looks.
    """

    _store: Store
    _dispatcher: Dispatcher
    _clock: IReactorTime
    _now: Callable[[], float]
    _seconds: float
    _looking: LoopingCall | None = field(default=None, init=False)
    _alive_at: float = field(default=0, init=False)
    _failing: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin to look."""
        self._alive_at = self._clock.seconds()
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._clock
        self._looking.start(self._seconds, now=False)

    def _look(self) -> Deferred[None]:
        looking = Deferred.fromCoroutine(self._look_once())
        return looking.addCallbacks(self._looked, self._failed)

    async def _look_once(self) -> None:
        if self._clock.seconds() - self._alive_at >= HEARTBEAT_SECONDS:
            self._alive_at = self._clock.seconds()
            orphans = await self._store.write(queue.take_orphans, self._now())
            self._dispatcher.recover_orphans(orphans)
        hosts = await self._store.read(queue.hosts_with_due_tasks, self._now())
        self._dispatcher.notify_due(hosts)

    def _looked(self, _: None) -> None:
        self._failing = False

    def _failed(self, failure: Failure) -> None:
        # Once is enough: requests and ticks say the same, and it is tried again soon.
        if failure.check(StoreUnavailable):
            if not self._failing:
                error = quoted(str(failure.value), 300)
                log.error("looking for what is due failed: {error}", error=error)
        else:
            log.failure("looking for what is due failed", failure)
        # As soon as the database is there again, the others must know that this one lives.
        self._alive_at = 0
        self._failing = True

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None and self._looking.running:
            self._looking.stop()
