"""Time: a monotonic clock, a wall clock, and the events in their order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.error import AlreadyCalled, AlreadyCancelled


@define(eq=False)
class Timer:
    """A future event; an ``IDelayedCall`` of a reactor.

    :ivar owner: its process, whose events end with it; ``None`` for the world itself.
    :ivar is_own: whether its process waits for it, by its own monotonic clock.
    """

    time: float
    owner: Any
    happen: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]
    is_own: bool = False
    called: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        if self.owner is not None and not self.owner.alive:
            return  # Timers of a dead process may be cancelled after its end.
        if self.called:
            raise AlreadyCalled
        if self.cancelled:
            raise AlreadyCancelled
        self.cancelled = True

    def active(self) -> bool:
        return not (self.called or self.cancelled)

    def getTime(self) -> float:
        return self.time


@define(eq=False)
class Timeline:
    """The events in their order.

    :ivar elapsed: the monotonic clock in seconds.
    :ivar ahead: seconds that the wall clock is ahead of it; setting the clock changes this.
    :ivar lateness: maximum seconds that a timer of a process is late, as on a busy machine.
    :ivar steps: the number of past events.
    """

    random: Random
    ahead: float
    elapsed: float = 1000.0
    lateness: float = 0.0
    steps: int = 0
    _order: int = 0
    _waiting: list[tuple[float, int, Timer]] = field(factory=list)

    def wall(self) -> float:
        """Return the wall clock: seconds since 1970."""
        return self.elapsed + self.ahead

    def after(
        self, seconds: float, owner: Any, happen: Callable[..., Any], *args: Any, **named: Any
    ) -> Timer:
        """Schedule an event after some seconds."""
        time = self.elapsed + max(0.0, seconds)
        timer = Timer(time, owner, happen, args, named)
        if owner is not None and not owner.alive:
            return timer
        if self.lateness and owner is not None:
            time += self.random.random() * self.lateness
        self._order += 1
        heapq.heappush(self._waiting, (time, self._order, timer))
        return timer

    def step(self, until: float) -> Timer | None:
        """Advance to the next event until ``end``, and return it without running it."""
        while self._waiting and self._waiting[0][0] <= until:
            time, _, timer = heapq.heappop(self._waiting)
            if timer.cancelled or (timer.owner is not None and not timer.owner.alive):
                continue
            if timer.owner is not None and timer.owner.frozen_until > time:
                self._order += 1
                thawed = (timer.owner.frozen_until, self._order, timer)
                heapq.heappush(self._waiting, thawed)
                continue
            self.elapsed = max(self.elapsed, time)
            self.steps += 1
            return timer
        self.elapsed = max(self.elapsed, until)
        return None

    def stop_clock(self, owner: Any, seconds: float) -> None:
        """Delay the timers of a process whose monotonic clock stops for some seconds."""
        for _, _, timer in self._waiting:
            if timer.owner is owner and timer.is_own:
                timer.time += seconds
        self._waiting = [
            (time + seconds if timer.owner is owner and timer.is_own else time, order, timer)
            for time, order, timer in self._waiting
        ]
        heapq.heapify(self._waiting)

    def set_wall(self, seconds: float) -> None:
        """Step the wall clock forward or back."""
        self.ahead += seconds

    def sleep(self, seconds: float, monotonic_too: bool) -> None:
        """Suspend the machine: the wall clock continues, and perhaps the monotonic clock too."""
        if monotonic_too:
            self.elapsed += seconds
        else:
            self.ahead += seconds
