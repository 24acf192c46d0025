"""The timer wheel: cheap timers for deadlines, of which nearly all are cancelled."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger(namespace="callme")

TICKS_PER_SECOND = 10
"""Resolution of the timers: each fires at the first tick at or after its time."""


@define(eq=False)
class Timer:
    """Function that is called at a tick, unless the timer is cancelled."""

    tick: int
    expire: Callable[[], None]


@define(eq=False)
class TimerWheel:
    """Timers that share one delayed call of the reactor for each tick.

    A delayed call for each request would be created and cancelled thousands of times a second.
    """

    _clock: IReactorTime
    # A dict instead of a set, because the order of a dict is the same in each run.
    _ticks: dict[int, dict[Timer, None]] = field(factory=dict, init=False)
    _delayed_calls: dict[int, IDelayedCall] = field(factory=dict, init=False)

    def set(self, seconds: float, expire: Callable[[], None]) -> Timer:
        """Call a function after some seconds, up to a tenth of a second late."""
        now = self._clock.seconds()
        tick = math.ceil((now + seconds) * TICKS_PER_SECOND)
        timer = Timer(tick, expire)
        if tick in self._ticks:
            self._ticks[tick][timer] = None
        else:
            self._ticks[tick] = {timer: None}
            delay = max(0.0, tick / TICKS_PER_SECOND - now)
            self._delayed_calls[tick] = self._clock.callLater(delay, self._read_first, tick)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancel a timer, unless it has fired."""
        timers = self._ticks.get(timer.tick)
        if timers is None:
            return
        timers.pop(timer, None)
        if not timers:
            del self._ticks[timer.tick]
            self._delayed_calls.pop(timer.tick).cancel()

    def _read_first(self, tick: int) -> None:
        """Let the reactor read its sockets once more before the timers of a tick expire.

        After a stopped process or a suspended machine resumes, its timers would expire before the
        reactor reads data that arrived in the meantime.
        """
        self._delayed_calls[tick] = self._clock.callLater(0, self._expire, tick)

    def _expire(self, tick: int) -> None:
        del self._delayed_calls[tick]
        for timer in self._ticks.pop(tick):
            try:
                timer.expire()
            except Exception:
                # The other timers of the tick are the deadlines of other calls.
                log.failure("a timer failed")
