"""The monitor of the reactor's turns; while a turn lasts, all other work waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

WINDOW_SECONDS = 60.0
"""Length of a measuring period in seconds; the longest turn is that of the current period and the
previous one."""


@define(eq=False)
class TurnMonitor:
    """Monitor of the longest turn of the reactor in the last one to two minutes.

    A turn is measured by the processor time of the reactor's thread. Unlike elapsed time, it
    excludes the wait for events, which code outside the reactor cannot measure.

    :param processor_time: returns the processor time of this thread in seconds.
    :param now: returns the time of the monotonic clock in seconds.
    """

    _processor_time: Callable[[], float] = time.thread_time
    _now: Callable[[], float] = time.monotonic
    _turn_began: float | None = field(default=None, init=False)
    _window_began: float = field(default=0.0, init=False)
    _longest: float = field(default=0.0, init=False)
    _longest_before: float = field(default=0.0, init=False)

    def install(self, reactor: Any) -> None:
        """Measure the turns of a reactor; call this in the reactor's thread.

        A reactor with a main loop of its own, such as that of asyncio, has no turns to measure.
        """
        iterate = getattr(reactor, "doIteration", None)
        if iterate is None:
            return

        def do_iteration(delay: float | None) -> None:
            self.begin_turn()
            iterate(delay)

        # The main loop looks up this method in each turn.
        reactor.doIteration = do_iteration

    def uninstall(self, reactor: Any) -> None:
        """Stop measuring."""
        vars(reactor).pop("doIteration", None)

    def begin_turn(self) -> None:
        """Record that a turn begins, and that the previous turn has ended."""
        used = self._processor_time()
        if self._turn_began is not None:
            self._roll()
            self._longest = max(self._longest, used - self._turn_began)
        self._turn_began = used

    def longest_seconds(self) -> float | None:
        """Return the longest turn in seconds; ``None`` if the reactor has no turns to measure."""
        if self._turn_began is None:
            return None
        self._roll()
        return max(self._longest, self._longest_before)

    def _roll(self) -> None:
        passed = self._now() - self._window_began
        if passed >= WINDOW_SECONDS:
            self._longest_before = self._longest if passed < 2 * WINDOW_SECONDS else 0.0
            self._longest = 0.0
            self._window_began = self._now()
