"""The rate limit of log lines: a number of each kind per second, followed by a count."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import define, field

LINES_PER_SECOND = 100
"""Maximum number of lines of one kind in a second."""
K = TypeVar("K", bound=Hashable)


@define(eq=False)
class LogLimit(Generic[K]):
    """Counter of the events of each kind in the current second.

    :param now: returns the wall-clock time: seconds since 1970.
    :param log_omitted: called with the number of events without a line, and their kind.
    """

    _now: Callable[[], float]
    _log_omitted: Callable[[int, K], None]
    _second: int = field(default=0, init=False)
    _events: dict[K, int] = field(factory=dict, init=False)

    def has_line(self, kind: K) -> bool:
        """Count an event; return whether to log it."""
        if (second := int(self._now())) != self._second:
            self.flush()
            self._second = second
        self._events[kind] = count = self._events.get(kind, 0) + 1
        return count <= LINES_PER_SECOND

    def flush(self) -> None:
        """Log the number of events without a line."""
        events, self._events = self._events, {}
        for kind, count in events.items():
            if count > LINES_PER_SECOND:
                self._log_omitted(count - LINES_PER_SECOND, kind)
