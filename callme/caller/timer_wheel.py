"""Deadlines that nearly always are not reached, kept together so that each costs little."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

PER_SECOND = 10
"""Deadlines are kept by the tenth of a second, rounded up."""


@define(eq=False)
class Deadline:
    """Something to be done when a time is over, unless it is called off."""

    slot: int
    expire: Callable[[], None]


@define(eq=False)
class Deadlines:
    """Sets one timer for all the deadlines of a tenth of a second.

    A timer of its own for each call would be made and unmade thousands of times a second.
    """

    _clock: IReactorTime
    _slots: dict[int, set[Deadline]] = field(factory=dict, init=False)
    _timers: dict[int, IDelayedCall] = field(factory=dict, init=False)

    def set(self, seconds: float, expire: Callable[[], None]) -> Deadline:
        """Have something done after some seconds, or up to a tenth of one later."""
        now = self._clock.seconds()
        slot = math.ceil((now + seconds) * PER_SECOND)
        deadline = Deadline(slot, expire)
        if slot in self._slots:
            self._slots[slot].add(deadline)
        else:
            self._slots[slot] = {deadline}
            delay = max(0.0, slot / PER_SECOND - now)
            self._timers[slot] = self._clock.callLater(delay, self._expire, slot)
        return deadline

    def call_off(self, deadline: Deadline) -> None:
        """Leave it undone; it may have been done already."""
        slot = self._slots.get(deadline.slot)
        if slot is None:
            return
        slot.discard(deadline)
        if not slot:
            del self._slots[deadline.slot]
            self._timers.pop(deadline.slot).cancel()

    def _expire(self, slot: int) -> None:
        del self._timers[slot]
        for deadline in self._slots.pop(slot):
            deadline.expire()
