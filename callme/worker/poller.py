"""The poller of a shared database: the heartbeat, and the due tasks of other daemons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..hosts.operations import each_due_host
from ..process.moments import LONG_AGO, Moment, TwoClocks
from ..store import queue
from ..store.database import Store
from ..store.interface import HEARTBEAT_SECONDS, StoreUnavailable, log_store_failure
from .dispatcher import Dispatcher

log = Logger(namespace="callme")

CLAIM_SECONDS = 25
"""Seconds after its last heartbeat for which a daemon certainly still owns its claims.

The margin to the timeout after which a daemon counts as dead leaves time for a call to start."""


@define(eq=False, kw_only=True)
class Poller:
    """Poller of a shared database, which works between ticks.

    Other daemons put tasks, release claims, and leave orphans when they die.

    :param clock: schedules timers.
    :param now: returns the wall-clock time: seconds since 1970.
    :param load_settings: loads the settings of hosts, which other daemons may have changed.
    :param interval_seconds: the interval between polls.
    """

    _store: Store
    _dispatcher: Dispatcher
    _clock: IReactorTime
    _now: Callable[[], float]
    _load_settings: Callable[[], Awaitable[None]]
    _interval_seconds: float
    _polling: LoopingCall | None = field(default=None, init=False)
    _clocks: TwoClocks = field(init=False)
    # The times of the last heartbeat, and of the last successful one.
    _last_heartbeat: Moment = field(init=False)
    _last_success: Moment = field(init=False)
    # The number of gaps between heartbeats that were long enough to lose claims.
    _gaps: int = field(default=0, init=False)
    _failing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._clocks = TwoClocks(self._clock.seconds, self._now)
        self._last_heartbeat = self._last_success = self._clocks.now()

    def start(self) -> None:
        """Begin to poll."""
        self._last_heartbeat = self._last_success = self._clocks.now()
        self._polling = LoopingCall(self._poll)
        self._polling.clock = self._clock
        self._polling.start(self._interval_seconds, now=False)

    def _poll(self) -> Deferred[None]:
        polling = Deferred.fromCoroutine(self._poll_once())
        return polling.addCallbacks(self._succeeded, self._failed)

    async def _poll_once(self) -> None:
        if self._clocks.age(self._last_heartbeat) >= HEARTBEAT_SECONDS:
            await self._send_heartbeat()
        await self._load_settings()
        hosts = await self._store.read(queue.hosts_with_due_tasks, self._now())
        if self._dispatcher.limits.has_settings:
            # The query above may find only tasks of paused hosts, which have been due for longest.
            hosts = [*hosts, *await self._store.read(each_due_host, self._now())]
        self._dispatcher.notify_due(hosts)

    async def _send_heartbeat(self) -> None:
        """Send the heartbeat, which also takes over the orphans of dead daemons."""
        sent_at = self._last_heartbeat = self._clocks.now()
        orphans = await self._store.write(queue.take_orphans, self._now())
        if not self._has_recent_heartbeat:
            self._gaps += 1
        self._last_success = sent_at
        self._dispatcher.recover_orphans(orphans)

    @property
    def _has_recent_heartbeat(self) -> bool:
        """Return whether no other daemon can have declared this one dead."""
        return self._clocks.age(self._last_success) < CLAIM_SECONDS

    def guard_claims(self) -> Callable[[], bool]:
        """Return a function for claims that are made from now on.

        It returns whether no other daemon can have taken them since: heartbeats have had no gap.
        """
        return partial(self._keeps_claims, self._gaps)

    def _keeps_claims(self, gaps: int) -> bool:
        return gaps == self._gaps and self._has_recent_heartbeat

    def _succeeded(self, _: None) -> None:
        self._failing = False

    def _failed(self, failure: Failure) -> None:
        # Only the first failure of an outage is logged, because requests and ticks log it too.
        if not self._failing or not failure.check(StoreUnavailable):
            log_store_failure(log, "polling for due tasks failed", failure)
        # The next poll sends a heartbeat, before the other daemons regard this one as dead.
        self._last_heartbeat = LONG_AGO
        self._failing = True

    def stop(self) -> None:
        """Stop polling."""
        if self._polling is not None and self._polling.running:
            self._polling.stop()
