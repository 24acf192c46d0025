"""Monitor of the turns of the reactor: during each, all other work waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

WINDOW_SECONDS = 60.0
"""Period whose longest turn is known, together with that of the period before it."""


@define(eq=False)
class TurnMonitor:
    """The longest turn of the reactor in the last minute or two.

    A turn is measured by the processor time of the reactor's thread. Unlike elapsed time, it
    excludes the wait for events, which code outside of the reactor cannot measure.

    :param processor_time: the processor time of this thread, seconds.
    :param now: the monotonic clock, seconds.
    """

    _processor_time: Callable[[], float] = time.thread_time
    _now: Callable[[], float] = time.monotonic
    _turn_began: float | None = field(default=None, init=False)
    _window_began: float = field(default=0.0, init=False)
    _longest: float = field(default=0.0, init=False)
    _longest_before: float = field(default=0.0, init=False)

    def install(self, reactor: Any) -> None:
        """Measure the turns of a reactor; call it in the reactor's thread.

        A reactor with a main loop of its own, such as that of asyncio, has no turns to measure.
        """
        iterate = getattr(reactor, "doIteration", None)
        if iterate is None:
            return

        def do_iteration(delay: float | None) -> None:
            self.begin_turn()
            iterate(delay)

        # Each turn of the main loop looks this method up.
        reactor.doIteration = do_iteration

    def uninstall(self, reactor: Any) -> None:
        """Measure no further turns."""
        vars(reactor).pop("doIteration", None)

    def begin_turn(self) -> None:
        """Note that a turn begins, and that the one before has ended."""
        used = self._processor_time()
        if self._turn_began is not None:
            self._roll()
            self._longest = max(self._longest, used - self._turn_began)
        self._turn_began = used

    def longest_seconds(self) -> float | None:
        """Return the longest turn; ``None`` where the reactor has no turns to measure."""
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
