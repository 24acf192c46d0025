"""Time: a clock that sets timers, a clock on the wall, and what happens when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.error import AlreadyCalled, AlreadyCancelled


@define(eq=False)
class Timer:
    """Something that will happen; what a reactor calls an ``IDelayedCall``.

    :ivar owner: whose it is; the dead do nothing. ``None``: the world's own.
    """

    time: float
    owner: Any
    happen: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]
    called: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        if self.owner is not None and not self.owner.alive:
            return  # What a dead process leaves may be cleaned up after it.
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
    """What happens, in its order.

    :ivar elapsed: the monotonic clock: seconds; it never goes back.
    :ivar ahead: how far the wall clock is ahead of it; setting the clock changes this.
    :ivar lateness: how many seconds a timer of a process may be late: a machine is busy.
    :ivar steps: how many things have happened.
    """

    random: Random
    ahead: float
    elapsed: float = 1000.0
    lateness: float = 0.0
    steps: int = 0
    _order: int = 0
    _waiting: list[tuple[float, int, Timer]] = field(factory=list)

    def wall(self) -> float:
        """Return what the clock on the wall says: seconds since 1970."""
        return self.elapsed + self.ahead

    def after(
        self, seconds: float, owner: Any, happen: Callable[..., Any], *args: Any, **named: Any
    ) -> Timer:
        """Let something happen after some seconds."""
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
        """Go to the next thing that happens until then, and return it: it is not done yet."""
        while self._waiting and self._waiting[0][0] <= until:
            time, _, timer = heapq.heappop(self._waiting)
            if timer.cancelled or (timer.owner is not None and not timer.owner.alive):
                continue
            self.elapsed = max(self.elapsed, time)
            self.steps += 1
            return timer
        self.elapsed = max(self.elapsed, until)
        return None

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.ahead += seconds

    def sleep(self, seconds: float, monotonic_too: bool) -> None:
        """Let a machine be suspended: the wall clock goes on, the other one may."""
        if monotonic_too:
            self.elapsed += seconds
        else:
            self.ahead += seconds
