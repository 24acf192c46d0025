"""The minute's tick: find what is due, whatever happens."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.times import MINUTE, floor_to_minute
from ..errors import quoted
from ..store import queue
from ..store.changes import Changes
from ..store.database import Store
from ..store.interface import StoreUnavailable
from .dispatcher import RETRY_SECONDS, Caller, Dispatcher
from .poller import Poller
from .pruner import Pruner
from .throughput import Capacity

log = Logger(namespace="callme")

CLOCK_CHECK_SECONDS = 5
"""How often, at least, the wall clock is looked at: it may have been set."""
TICK_TIMEOUT_SECONDS = 90
"""How old the last tick may be before the scheduler counts as stopped."""


@frozen
class Health:
    """How the scheduler is.

    :ivar ticking: whether it has ticked as it should.
    :ivar last_tick: when it last ticked, seconds since 1970; ``None`` before the first.
    """

    ticking: bool
    last_tick: float | None
    calls_in_flight: int


class Scheduler:
    """Calls what is due, on the minute.

    :param now: the wall clock: seconds since 1970.
    :param clock: what sets timers.
    :param concurrency: calls under way at once.
    :param per_host: ... of them to one host and port.
    :param between: seconds between looks for what other daemons leave, where there are any.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        retention: Pruner,
        clock: IReactorTime,
        now: Callable[[], float],
        concurrency: int = 256,
        per_host: int = 64,
        between: float | None = None,
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._wall = now
        self._last_wall_time = 0.0
        self._clock_went_back = False
        self._dispatcher = Dispatcher(
            store, caller, clock, self._now, concurrency, per_host, self._tick_failed
        )
        self._minute: LoopingCall | None = None
        self._others = (
            None if between is None else Poller(store, self._dispatcher, clock, now, between)
        )
        self._retry: IDelayedCall | None = None
        self._ticking = self._again = False
        self._recovered = self._stopping = False
        self._ticked_minute = 0
        self._last_tick: float | None = None
        # By the clock of the timers: the wall clock may be set.
        self._last_success = self._last_tick_end = clock.seconds()

    def start(self) -> None:
        """Catch up with what fell due meanwhile, then tick at every minute."""
        self._last_success = self._last_tick_end = self._clock.seconds()
        self._align_to_minute()
        self.tick()
        if self._others is not None:
            self._others.start()

    def _now(self) -> float:
        """Read the wall clock, and note if it was set back.

        Where it was so in the middle of a tick, that tick did not see what is due in the
        minute that it began in: there must be another one.
        """
        now = self._wall()
        self._clock_went_back = self._clock_went_back or now < self._last_wall_time
        self._last_wall_time = now
        return now

    def _align_to_minute(self) -> None:
        # A loop of 60 s counted from its start would drift away from the wall clock, and
        # one that sleeps the whole minute would not see that the clock was set.
        self._minute = LoopingCall(self._check_wall_clock)
        self._minute.clock = self._clock
        self._minute.start(min(CLOCK_CHECK_SECONDS, MINUTE - self._now() % MINUTE), now=False)

    def _check_wall_clock(self) -> None:
        assert self._minute is not None
        self._minute.stop()
        self._align_to_minute()
        if self._clock_went_back or floor_to_minute(self._now()) != self._ticked_minute:
            self.tick()

    def on_changes(self, changes: Changes) -> None:
        """Call what a commit has scheduled and is due before the next tick."""
        self._dispatcher.on_changes(changes)

    def tick(self) -> None:
        """Find what is due and launch it; returns at once, and never raises."""
        self._ticked_minute = floor_to_minute(self._now())
        self._clock_went_back = False
        if self._ticking:
            # What has fallen due since that tick looked must not wait for the next minute.
            self._again = True
        elif not self._stopping:
            self._ticking = True
            ticking = Deferred.fromCoroutine(self._tick())
            ticking.addErrback(lambda failure: log.failure("a tick failed", failure))

    async def _tick(self) -> None:
        try:
            self._again = True
            while self._again and not self._stopping:
                self._again = False
                await self._look()
        except Exception:
            self._tick_failed(Failure())
        finally:
            self._ticking = False
            self._last_tick_end = self._clock.seconds()
        self._retention.purge()

    async def _look(self) -> None:
        """Look once at what the database has for us."""
        # Where no other daemon uses it, every claim in it at the start is a dead one's.
        orphans = await self._store.write(
            queue.take_orphans, self._now(), every=not self._recovered
        )
        if self._stopping:
            return
        self._recovered = True
        self._dispatcher.recover_orphans(orphans)
        self._dispatcher.open()
        self._dispatcher.reset_responsive_hosts()
        due = await self._store.write(queue.expire_overdue, self._now())
        self._last_tick = self._now()
        self._last_success = self._clock.seconds()
        self._again = self._again or due.more
        self._dispatcher.notify_due(due.hosts)

    def _tick_failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            error = quoted(str(failure.value), 300)
            log.error("the tick failed: {error}; trying again soon", error=error)
        else:
            log.failure("the tick failed; trying again soon", failure)
        if not self._stopping and (self._retry is None or not self._retry.active()):
            self._retry = self._clock.callLater(RETRY_SECONDS, self.tick)

    async def stop(self, grace: float, then: float) -> None:
        """Stop ticking, and close the dispatcher: see :meth:`Dispatcher.close`."""
        self._stopping = True
        if self._minute is not None and self._minute.running:
            self._minute.stop()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._others is not None:
            self._others.stop()
        self._retention.stop()
        await self._dispatcher.close(grace, then)

    def capacity(self) -> Capacity:
        """Say how fast calls can be made."""
        return self._dispatcher.capacity

    def makes_progress(self) -> bool:
        """Return whether ticks end, successfully or not.

        A tick that fails because the database is down ends; a restart would not help it.
        """
        hangs = self._clock.seconds() - self._last_tick_end >= TICK_TIMEOUT_SECONDS
        return self._stopping or not hangs

    def health(self) -> Health:
        """Say how the scheduler is."""
        stale = self._clock.seconds() - self._last_success >= TICK_TIMEOUT_SECONDS
        return Health(
            ticking=not self._stopping and not stale,
            last_tick=self._last_tick,
            calls_in_flight=self._dispatcher.calls_in_flight,
        )
