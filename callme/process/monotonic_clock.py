"""Timers on the monotonic clock, which are unaffected when the wall clock is set.

Twisted's reactor measures its timers by the wall clock (its ``seconds`` is ``time.time``). When the
wall clock is set back by an hour, every timer is an hour late; when it is set forward, all timers
expire at once. Assigning another function to ``reactor.seconds`` would affect the timers of other
code, and has no effect on reactors with a loop of their own; a custom reactor would require an
option of twistd.

Each timer here therefore has a deadline on the monotonic clock, and a timer of the reactor that
wakes it. If it wakes too early, it sets a new reactor timer for the remaining time. If the wall
clock was set, all reactor timers are set again. A thread compares the two clocks to detect that: a
timer of the reactor cannot, and nothing else wakes an idle reactor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from attrs import define, field
from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

log = Logger(namespace="callme")

WATCH_SECONDS = 1.0
"""Interval in seconds at which the clocks are compared, and thus the maximum delay of a timer."""
TOLERANCE_SECONDS = 0.25
"""Change of the clocks' offset in seconds above which timers are set again; the gradual corrections
of NTP stay below it."""


@implementer(IReactorTime)
@define(eq=False)
class MonotonicClock:
    """Monotonic clock for timers, with an arbitrary origin.

    :param reactor: the reactor whose timers wake the timers of this clock.
    :param monotonic: returns the time of the monotonic clock in seconds.
    """

    _reactor: Any
    _monotonic: Callable[[], float] = time.monotonic
    _wakeups: dict[DelayedCall, IDelayedCall] = field(factory=dict, init=False)
    _offset: float = field(init=False)
    _stopped: Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._offset = self._measure_offset()

    def seconds(self) -> float:
        return self._monotonic()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        deadline = self._monotonic() + delay
        call = DelayedCall(
            deadline, callable, args, kwargs, self._cancel, self._reschedule, self._monotonic
        )
        self._wakeups[call] = self._reactor.callLater(delay, self._on_wakeup, call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return list(self._wakeups)

    def _on_wakeup(self, call: DelayedCall) -> None:
        if (remaining := call.getTime() - self._monotonic()) > 0:
            self._wakeups[call] = self._reactor.callLater(remaining, self._on_wakeup, call)
            return
        del self._wakeups[call]
        call.called = 1
        call.func(*call.args, **call.kw)

    def _cancel(self, call: DelayedCall) -> None:
        self._wakeups.pop(call).cancel()

    def _reschedule(self, call: DelayedCall) -> None:
        self._wakeups[call].reset(max(0.0, call.getTime() - self._monotonic()))

    def start(self) -> None:
        """Start watching the wall clock; call this after the fork of a background daemon."""
        self._stopped = Event()
        Thread(target=self._watch, args=(self._stopped,), daemon=True).start()

    def stop(self) -> None:
        """Stop watching the wall clock; timers continue to run."""
        if self._stopped is not None:
            self._stopped.set()

    def _measure_offset(self) -> float:
        """Return the offset of the wall clock from the monotonic clock in seconds."""
        while True:
            before, wall = self._monotonic(), self._reactor.seconds()
            # A pause of this thread between the two readings would falsify the offset.
            if self._monotonic() - before < TOLERANCE_SECONDS / 4:
                return float(wall - before)

    def _watch(self, stopped: Event) -> None:
        """Watch the wall clock until ``stopped`` is set; runs in a thread of its own."""
        while True:
            # Before Python 3.11, and with older versions of glibc, stopped.wait() depends on the
            # wall clock. sleep() never does.
            time.sleep(WATCH_SECONDS)
            if stopped.is_set():
                return
            offset = self._measure_offset()
            step = offset - self._offset
            if abs(step) > TOLERANCE_SECONDS:
                self._reactor.callFromThread(self._reschedule_all, step)
                self._offset = offset

    def _reschedule_all(self, step: float) -> None:
        log.warn("wall clock was set by {step:+.1f} s, or the machine was suspended", step=step)
        for call in list(self._wakeups):
            self._reschedule(call)
