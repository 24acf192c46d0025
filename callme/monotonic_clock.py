"""Timers that go by a clock which nobody sets.

Twisted's reactor counts its timers by the wall clock (its ``seconds`` is ``time.time``):
set back by an hour, every timer is an hour late; set forward, each is over at once.
Assigning another function to ``reactor.seconds`` would change timers that are not ours, and
means nothing to reactors that have a loop of their own; a reactor of ours could not be had
without an option of twistd's. So each timer is kept here by the monotonic clock, and the
reactor's only rings: too soon, and it is set again for the rest; too late, and it is put
right. For that something has to notice that the wall clock was set, and no timer of the
reactor's can, nor is there anything else that wakes a reactor to which nobody talks. A thread
compares the two clocks.
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
"""How often the clocks are compared: no timer is late by more than this."""
TOLERATED = 0.25
"""Seconds by which the clocks may part before timers are set anew; NTP parts them slowly."""


@implementer(IReactorTime)
@define(eq=False)
class MonotonicClock:
    """A clock for timers, whose seconds all have the same length; counted from no date.

    :param reactor: what waits.
    :param steady: the monotonic clock.
    """

    _reactor: Any
    _steady: Callable[[], float] = time.monotonic
    _bells: dict[DelayedCall, IDelayedCall] = field(factory=dict, init=False)
    _apart: float = field(init=False)
    _stopped: Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._apart = self._distance()

    def seconds(self) -> float:
        return self._steady()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        at = self._steady() + delay
        call = DelayedCall(at, callable, args, kwargs, self._cancelled, self._moved, self._steady)
        self._bells[call] = self._reactor.callLater(delay, self._ring, call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return list(self._bells)

    def _ring(self, call: DelayedCall) -> None:
        if (left := call.getTime() - self._steady()) > 0:
            self._bells[call] = self._reactor.callLater(left, self._ring, call)
            return
        del self._bells[call]
        call.called = 1
        call.func(*call.args, **call.kw)

    def _cancelled(self, call: DelayedCall) -> None:
        self._bells.pop(call).cancel()

    def _moved(self, call: DelayedCall) -> None:
        self._bells[call].reset(max(0.0, call.getTime() - self._steady()))

    def start(self) -> None:
        """Begin to watch the wall clock; not before a daemon has gone into the background."""
        self._stopped = Event()
        Thread(target=self._watch, args=(self._stopped,), daemon=True).start()

    def stop(self) -> None:
        """Watch no more; timers go on."""
        if self._stopped is not None:
            self._stopped.set()

    def _distance(self) -> float:
        """Return by how much the wall clock is ahead of the steady one."""
        while True:
            before, seconds = self._steady(), self._reactor.seconds()
            # Nobody must have been held up between the two looks.
            if self._steady() - before < TOLERATED / 4:
                return float(seconds - before)

    def _watch(self, stopped: Event) -> None:
        """Run in a thread until told to stop."""
        while True:
            # Not stopped.wait(): before Python 3.11, and without a recent glibc, locks wait by
            # the wall clock. Sleep never does.
            time.sleep(WATCH_SECONDS)
            if stopped.is_set():
                return
            apart = self._distance()
            if abs(apart - self._apart) > TOLERATED:
                self._reactor.callFromThread(self._put_right, apart - self._apart)
                self._apart = apart

    def _put_right(self, step: float) -> None:
        log.warn("the wall clock was set by {step:+.1f} s, or the machine slept", step=step)
        for call in list(self._bells):
            self._moved(call)
