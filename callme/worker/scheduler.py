"""The scheduler, which ticks at each minute to find due tasks, and retries a failed tick."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from enum import Enum, auto
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.times import MINUTE, floor_to_minute
from ..hosts.operations import load_settings
from ..process.moments import LONG_AGO, TwoClocks
from ..store import queue
from ..store.changes import Changes
from ..store.database import Store
from ..store.interface import log_store_failure
from .dispatcher import Caller, Dispatcher, always
from .host_memory import HostResults
from .poller import Poller
from .pruner import Pruner
from .recorder import RETRY_SECONDS
from .scrubber import Scrubber
from .slots import Slots
from .throughput import Capacity

log = Logger(namespace="callme")

MAX_SETTINGS_AGE_SECONDS = 2
"""Age of the settings of hosts in seconds from which a daemon of a fleet claims nothing.

A daemon loads them more often unless it was suspended."""
CLOCK_CHECK_SECONDS = 5
"""Maximum interval in seconds between checks whether the wall clock was set."""
_NOT_LOADED = "loading the settings of hosts failed"
TICK_TIMEOUT_SECONDS = 90
"""Age of the last successful tick in seconds from which the scheduler counts as stopped."""


@frozen(kw_only=True)
class Health:
    """State of the scheduler.

    :ivar ticking: whether the scheduler runs, and its last tick is recent enough.
    :ivar last_tick: the time of the last tick: seconds since 1970; ``None`` before the first.
    :ivar calls_in_flight: the number of calls in flight.
    :ivar saturated_seconds: seconds for which due calls have found no free slot; 0 while they do.
    :ivar all_paused: whether calls to all hosts are paused.
    :ivar paused_hosts: the number of hosts that are paused by settings of their own.
    :ivar failing_hosts: the number of hosts whose latest attempts have all failed.
    :ivar damaged_rows: the number of rows that another program has damaged.
    """

    ticking: bool
    last_tick: float | None
    calls_in_flight: int
    saturated_seconds: float = 0.0
    all_paused: bool = False
    paused_hosts: int = 0
    failing_hosts: int = 0
    damaged_rows: int = 0


@define(eq=False, kw_only=True)
class Housekeeping:
    """Background work on the database, which no call waits for.

    :ivar pruner: deletes old tasks.
    :ivar scrubber: searches for damaged rows.
    :param release_memory: returns free memory to the system.
    """

    pruner: Pruner
    scrubber: Scrubber
    _release_memory: Callable[[], object]
    # The work in progress, by what is logged when it fails.
    _runs: dict[str, Deferred[None]] = field(factory=dict, init=False)

    def begin(self) -> None:
        """Begin the work, except for a part that is still in progress; return at once."""
        self._begin("pruning failed", self.pruner.run)
        self._begin("the search for damaged rows failed", self._scrub)

    def _begin(self, failed: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def ended(_: None) -> None:
            del self._runs[failed]

        if failed not in self._runs:
            self._runs[failed] = run = Deferred.fromCoroutine(work())
            run.addErrback(lambda failure: _log_failure(failed, failure))
            run.addCallback(ended)

    async def _scrub(self) -> None:
        await self.scrubber.run()
        # Not at the tick, after which calls need memory.
        self._release_memory()

    def stop(self) -> None:
        """Stop the work; the next run continues it."""
        for run in list(self._runs.values()):
            run.cancel()


def _log_failure(event: str, failure: Failure) -> None:
    if not failure.check(CancelledError):
        log_store_failure(log, event, failure)


class TickState(Enum):
    """States of the scheduler between its start and its stop."""

    IDLE = auto()
    TICKING = auto()
    TICK_AGAIN = auto()
    STOPPED = auto()


class Scheduler:
    """Scheduler of calls on the minute.

    :param housekeeping: the background work on the database after each tick.
    :param clock: schedules timers.
    :param now: returns the wall-clock time: seconds since 1970.
    :param slots: the slots for calls in flight.
    :param node: returns the daemon's name.
    :param poll_seconds: the interval between polls of a shared database; ``None`` if no other
        daemon uses the database.
    """

    def __init__(
        self,
        *,
        store: Store,
        caller: Caller,
        housekeeping: Housekeeping,
        clock: IReactorTime,
        now: Callable[[], float],
        slots: Slots,
        node: Callable[[], str] = str,
        poll_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._housekeeping = housekeeping
        self._clock = clock
        self._wall = now
        self._clocks = TwoClocks(clock.seconds, now)
        self._node = node
        self._last_wall_time = 0.0
        self._clock_went_back = False
        self._dispatcher = Dispatcher(
            store=store,
            caller=caller,
            clock=clock,
            now=self._now,
            slots=slots,
            on_claim_failure=self._tick_failed,
            guard_claims=lambda: always if self._poller is None else self._poller.guard_claims(),
            knows_settings=self._knows_settings,
        )
        self._poller: Poller | None = None
        if poll_seconds is not None:
            self._poller = Poller(
                store=store,
                dispatcher=self._dispatcher,
                clock=clock,
                now=now,
                load_settings=self._load_settings,
                interval_seconds=poll_seconds,
            )
        self._minute: LoopingCall | None = None
        self._retry: IDelayedCall | None = None
        self._state = TickState.IDLE
        self._orphans_recovered = False
        # The number of changes of settings of hosts, and its value for the settings in use.
        self._settings_changes = 0
        self._settings_in_use = -1
        self._settings_read_at = LONG_AGO
        self._ticked_minute = 0
        self._last_tick: float | None = None
        # These times are of the monotonic clock, because the wall clock may be set.
        self._last_success = self._last_tick_end = clock.seconds()

    def start(self) -> None:
        """Call the tasks that became due before the start, then tick at every minute."""
        self._last_success = self._last_tick_end = self._clock.seconds()
        self._align_to_minute()
        self.tick()
        if self._poller is not None:
            self._poller.start()

    def _now(self) -> float:
        """Return the wall-clock time, and record whether the clock was set back.

        If the clock is set back during a tick, the tick may have missed tasks of the minute in
        which it began, so that another tick is necessary.
        """
        now = self._wall()
        self._clock_went_back = self._clock_went_back or now < self._last_wall_time
        self._last_wall_time = now
        return now

    def _align_to_minute(self) -> None:
        # A loop of 60 s from its start would drift from the wall clock, and a loop that sleeps for
        # a whole minute would not detect that the clock was set.
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
        """Call the tasks that a commit made due before the next tick."""
        self._dispatcher.on_changes(changes)
        if changes.changed_hosts:
            self._settings_changes += 1
            self._dispatcher.limits.expect(changes.changed_hosts, self._settings_changes)
            loading = Deferred.fromCoroutine(self._load_settings())
            loading.addErrback(self._not_loaded)

    async def _load_settings(self) -> None:
        """Load the settings of hosts, and use them unless newer settings are already in use.

        Reads run concurrently, so that an earlier read may return after a later one.
        """
        changes = self._settings_changes
        read_at = self._clocks.now()
        snapshot = await self._store.read(load_settings, self._node())
        if changes >= self._settings_in_use:
            self._settings_in_use = changes
            self._settings_read_at = read_at
            self._dispatcher.apply_settings(snapshot, changes)

    def _not_loaded(self, failure: Failure) -> None:
        log_store_failure(log, _NOT_LOADED, failure, is_retried=True)
        self._tick_soon()

    def _knows_settings(self) -> bool:
        """Return whether the settings of hosts are recent enough to start calls.

        Other daemons may have changed them while this process was suspended.
        """
        age = self._clocks.age(self._settings_read_at)
        return self._poller is None or age < MAX_SETTINGS_AGE_SECONDS

    def tick(self) -> None:
        """Find due tasks and start their calls; return at once, and never raise."""
        self._ticked_minute = floor_to_minute(self._now())
        self._clock_went_back = False
        if self._state is TickState.TICKING:
            # Tasks may have become due since the tick in progress read the database, and the next
            # tick is a minute away.
            self._state = TickState.TICK_AGAIN
        elif self._state is TickState.IDLE:
            self._state = TickState.TICKING
            ticking = Deferred.fromCoroutine(self._tick())
            ticking.addErrback(lambda failure: log.failure("a tick failed", failure))

    async def _tick(self) -> None:
        try:
            await self._scan_due()
            while self._state is TickState.TICK_AGAIN:
                self._state = TickState.TICKING
                await self._scan_due()
        except Exception:
            self._tick_failed(Failure())
        finally:
            if self._state is not TickState.STOPPED:
                self._state = TickState.IDLE
            self._last_tick_end = self._clock.seconds()
        if self._state is not TickState.STOPPED:
            self._housekeeping.begin()

    @property
    def _is_stopped(self) -> bool:
        return self._state is TickState.STOPPED

    async def _scan_due(self) -> None:
        """Recover orphans, fail expired tasks, and notify the dispatcher of due ones."""
        # If no other daemon uses the database, every claim in it at the start is an orphan.
        every = not self._orphans_recovered
        if self._settings_in_use < self._settings_changes:
            # The settings are loaded first: a failure must not lose the orphans taken over below.
            await self._load_settings()
            if self._is_stopped:
                return
        orphans = await self._store.write(queue.take_orphans, self._now(), every=every)
        if self._state is TickState.STOPPED:
            return
        self._orphans_recovered = True
        self._dispatcher.recover_orphans(orphans)
        self._dispatcher.open()
        self._dispatcher.begin_minute()
        due = await self._store.write(queue.expire_overdue, self._now())
        self._last_tick = self._now()
        self._last_success = self._clock.seconds()
        if due.more and self._state is TickState.TICKING:
            self._state = TickState.TICK_AGAIN
        self._dispatcher.notify_due(due.hosts)

    def _tick_failed(self, failure: Failure) -> None:
        log_store_failure(log, "the tick failed", failure, is_retried=True)
        self._tick_soon()

    def _tick_soon(self) -> None:
        is_stopped = self._state is TickState.STOPPED
        if not is_stopped and (self._retry is None or not self._retry.active()):
            self._retry = self._clock.callLater(RETRY_SECONDS, self.tick)

    async def stop(self, grace_seconds: float, flush_seconds: float) -> None:
        """Stop ticking, and drain the dispatcher: see :meth:`Dispatcher.drain`."""
        self._state = TickState.STOPPED
        if self._minute is not None and self._minute.running:
            self._minute.stop()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._poller is not None:
            self._poller.stop()
        self._housekeeping.stop()
        await self._dispatcher.drain(grace_seconds, flush_seconds)

    def capacity(self) -> Capacity:
        """Return the measured rate and durations of calls, and their limits."""
        return self._dispatcher.capacity

    def makes_progress(self) -> bool:
        """Return whether ticks end, successfully or not.

        A tick that fails because the database is down counts as well: a restart would not help.
        """
        hangs = self._clock.seconds() - self._last_tick_end >= TICK_TIMEOUT_SECONDS
        return self._state is TickState.STOPPED or not hangs

    @property
    def host_results(self) -> Mapping[str, HostResults]:
        """The results of this daemon's latest calls by host."""
        return self._dispatcher.host_results

    def health(self) -> Health:
        """Return the state of the scheduler."""
        is_stale = self._clock.seconds() - self._last_success >= TICK_TIMEOUT_SECONDS
        return Health(
            ticking=self._state is not TickState.STOPPED and not is_stale,
            last_tick=self._last_tick,
            calls_in_flight=self._dispatcher.calls_in_flight,
            saturated_seconds=self._dispatcher.saturated_seconds,
            all_paused=self._dispatcher.limits.all_paused,
            paused_hosts=self._dispatcher.limits.paused_hosts,
            failing_hosts=self._dispatcher.failing_hosts,
            damaged_rows=self._housekeeping.scrubber.damaged_rows,
        )
