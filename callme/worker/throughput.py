"""How fast calls were made lately: the rate while there was no room for more, mean durations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from ..core.times import MINUTE

DEFAULT_CALL_SECONDS = 1.0
"""How long a call is taken to last before any was made."""
MAX_ESTIMATED_RATE = 1000.0
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
        of all calls where it had none, of :data:`DEFAULT_CALL_SECONDS` where there were none; but
        for at most :data:`MAX_ESTIMATED_RATE`.
        """
        usual = DEFAULT_CALL_SECONDS if self.duration is None else self.duration
        if host is not None:
            seconds = max(_LEAST_SECONDS, self.durations.get(host, usual))
            return min(self.places(host) / seconds, self.calls_per_second())
        return self.rate or min(MAX_ESTIMATED_RATE, self.concurrency / max(_LEAST_SECONDS, usual))

    def is_measured(self, host: str | None = None) -> bool:
        """Whether calls were seen that the rate comes from, in all or to a host."""
        return self.rate is not None if host is None else host in self.durations

    @property
    def sustainable_per_minute(self) -> int:
        """How many calls a minute every host can take, so that none are left over."""
        usual = DEFAULT_CALL_SECONDS if self.duration is None else self.duration
        slowest = max(_LEAST_SECONDS, usual, *self.durations.values())
        return max(1, int(MINUTE * min(self.places("") / slowest, self.calls_per_second())))


WINDOW_SECONDS = 60.0
"""After so many seconds without room, what was seen before counts half."""
MIN_SAMPLES = 100
"""Calls that must have ended in such seconds before they are a rate."""
SAMPLE_WINDOW = 100
"""A mean duration is one of about so many of the latest calls."""
MAX_HOSTS = 1000
"""Hosts whose durations are kept: those called last."""


@define
class MovingAverage:
    """The mean of the latest values."""

    value: float = 0.0
    _count: int = 0

    def add(self, value: float) -> None:
        """Count one more value."""
        self._count = min(self._count + 1, SAMPLE_WINDOW)
        self.value += (value - self.value) / self._count


@define(eq=False)
class ThroughputMeter:
    """What the dispatcher has seen of its calls.

    :param seconds: a clock that nobody sets.
    """

    _seconds: Callable[[], float]
    _short_since: float | None = field(default=None, init=False)
    # While room was short: for how long, and how many calls ended.
    _short: float = field(default=0.0, init=False)
    _calls: float = field(default=0.0, init=False)
    _all: MovingAverage | None = field(default=None, init=False)
    _hosts: OrderedDict[str, MovingAverage] = field(factory=OrderedDict, init=False)

    def room(self, *, short: bool) -> None:
        """Say whether calls wait for a place that their own host would give them."""
        now = self._seconds()
        if self._short_since is not None:
            self._short += now - self._short_since
        self._short_since = now if short else None
        if self._short > WINDOW_SECONDS:
            self._short, self._calls = self._short / 2, self._calls / 2

    def ended(self, host: str, duration_ms: int | None) -> None:
        """Say that a call has ended."""
        if self._short_since is not None:
            self._calls += 1
        if duration_ms is None:
            return
        if self._all is None:
            self._all = MovingAverage()
        self._all.add(duration_ms / 1000)
        self._hosts.setdefault(host, MovingAverage()).add(duration_ms / 1000)
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def capacity(self, concurrency: int, per_host: int) -> Capacity:
        """Return how fast calls can be made, by what was seen and these limits."""
        short = self._short
        if self._short_since is not None:
            short += self._seconds() - self._short_since
        measured = self._calls >= MIN_SAMPLES and short > 0
        return Capacity(
            concurrency=concurrency,
            per_host=per_host,
            rate=self._calls / short if measured else None,
            duration=None if self._all is None else self._all.value,
            durations={host: mean.value for host, mean in self._hosts.items()},
        )
