"""How fast calls can be made: by what was seen, and by the limits where nothing was."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from .trigger import MINUTE

ASSUMED_SECONDS = 1.0
"""How long a call is taken to last before any was made."""
MOST_RECKONED = 1000.0
"""Calls a second of all hosts that are believed before as many were seen: short calls are bounded
by the processor, not by places."""
_LEAST_SECONDS = 0.001


@frozen
class Capacity:
    """How fast calls can be made.

    :ivar concurrency: calls under way at once.
    :ivar per_host: ... of them to one host and port.
    :ivar rate: calls that ended in a second, while there was no room for more; ``None``
        where that was not measured.
    :ivar duration: the mean duration of a call, in seconds; ``None`` before the first.
    :ivar durations: the same by host.
    """

    concurrency: int
    per_host: int
    rate: float | None = None
    duration: float | None = None
    durations: Mapping[str, float] = field(factory=dict)

    def places(self, host: str | None = None) -> int:
        """Return how many calls can be under way at once, in all or to a host."""
        return self.concurrency if host is None else min(self.concurrency, self.per_host)

    def calls_per_second(self, host: str | None = None) -> float:
        """Return how many calls end in a second where there are enough, in all or of a host.

        What was not measured is reckoned: places by the mean duration of the host's calls,
        of all calls where it had none, of :data:`ASSUMED_SECONDS` where there were none; but
        for at most :data:`MOST_RECKONED`.
        """
        usual = ASSUMED_SECONDS if self.duration is None else self.duration
        if host is not None:
            seconds = max(_LEAST_SECONDS, self.durations.get(host, usual))
            return min(self.places(host) / seconds, self.calls_per_second())
        return self.rate or min(MOST_RECKONED, self.concurrency / max(_LEAST_SECONDS, usual))

    def is_measured(self, host: str | None = None) -> bool:
        """Whether calls were seen that the rate comes from, in all or to a host."""
        return self.rate is not None if host is None else host in self.durations

    @property
    def calm(self) -> int:
        """How many calls a minute every host can take, so that none are left over."""
        usual = ASSUMED_SECONDS if self.duration is None else self.duration
        slowest = max(_LEAST_SECONDS, usual, *self.durations.values())
        return max(1, int(MINUTE * min(self.places("") / slowest, self.calls_per_second())))
