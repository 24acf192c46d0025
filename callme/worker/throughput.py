"""The throughput of recent calls: their rate under saturation, and their durations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from ..core.times import MINUTE

DEFAULT_CALL_SECONDS = 1.0
"""Assumed duration in seconds while no call has ended."""
MAX_ESTIMATED_RATE = 1000.0
"""Upper bound of an estimated rate in calls per second, because the rate of short calls is limited
by the processor instead of the slots."""
_MIN_SECONDS = 0.001


@frozen(kw_only=True)
class Capacity:
    """Limits of calls, and their measured rate and durations.

    :ivar concurrency: the maximum number of calls in flight.
    :ivar per_host: the maximum number of calls in flight to one host and port.
    :ivar rate: calls per second, measured under saturation; ``None`` if not measured.
    :ivar duration: the mean duration of a call, in seconds; ``None`` before the first.
    :ivar durations: the mean duration of a call by host, in seconds.
    """

    concurrency: int
    per_host: int
    rate: float | None = None
    duration: float | None = None
    durations: Mapping[str, float] = field(factory=dict)

    def slots(self, host: str | None = None) -> int:
        """Return the maximum number of calls in flight, in total or to one host."""
        return self.concurrency if host is None else min(self.concurrency, self.per_host)

    def calls_per_second(self, host: str | None = None) -> float:
        """Return the possible number of calls per second, in total or to one host.

        A rate that was not measured is estimated: slots divided by the mean duration of the
        host's calls, of all calls if the host had none, or by :data:`DEFAULT_CALL_SECONDS` before
        the first call; at most :data:`MAX_ESTIMATED_RATE`.
        """
        mean_seconds = DEFAULT_CALL_SECONDS if self.duration is None else self.duration
        if host is not None:
            seconds = max(_MIN_SECONDS, self.durations.get(host, mean_seconds))
            return min(self.slots(host) / seconds, self.calls_per_second())
        return self.rate or min(
            MAX_ESTIMATED_RATE, self.concurrency / max(_MIN_SECONDS, mean_seconds)
        )

    def is_measured(self, host: str | None = None) -> bool:
        """Return whether the rate, in total or to one host, is based on measured calls."""
        return self.rate is not None if host is None else host in self.durations

    @property
    def sustainable_per_minute(self) -> int:
        """The number of calls per minute that any host can receive without a backlog."""
        mean_seconds = DEFAULT_CALL_SECONDS if self.duration is None else self.duration
        slowest = max(_MIN_SECONDS, mean_seconds, *self.durations.values())
        return max(1, int(MINUTE * min(self.slots("") / slowest, self.calls_per_second())))


WINDOW_SECONDS = 60.0
"""Seconds of saturation after which the weight of older calls is halved."""
MIN_SAMPLES = 100
"""Minimum number of calls that must end under saturation before a rate is measured."""
SAMPLE_WINDOW = 100
"""Approximate number of the latest calls that a mean duration covers."""
MAX_MEASURED_HOSTS = 1000
"""Maximum number of hosts with a mean duration, the most recently called."""


@define
class MovingAverage:
    """Moving average of the latest values."""

    value: float = 0.0
    _count: int = 0

    def add(self, value: float) -> None:
        """Add a value."""
        self._count = min(self._count + 1, SAMPLE_WINDOW)
        self.value += (value - self.value) / self._count


@define(eq=False)
class ThroughputMeter:
    """Meter of the dispatcher's calls.

    Slots are saturated while a due call waits for a slot although its host is below its limit.

    :param seconds: returns the time of the monotonic clock.
    """

    _seconds: Callable[[], float]
    _saturated_since: float | None = field(default=None, init=False)
    # The start of the current uninterrupted saturation.
    _first_saturated: float | None = field(default=None, init=False)
    # The duration of saturation in seconds, and the number of calls that ended during it.
    _saturated_seconds: float = field(default=0.0, init=False)
    _calls: float = field(default=0.0, init=False)
    _all: MovingAverage | None = field(default=None, init=False)
    _hosts: OrderedDict[str, MovingAverage] = field(factory=OrderedDict, init=False)

    def set_saturated(self, is_saturated: bool) -> None:
        """Begin or end a period of saturation."""
        now = self._seconds()
        if self._saturated_since is not None:
            self._saturated_seconds += now - self._saturated_since
        self._saturated_since = now if is_saturated else None
        if not is_saturated:
            self._first_saturated = None
        elif self._first_saturated is None:
            self._first_saturated = now
        if self._saturated_seconds > WINDOW_SECONDS:
            self._saturated_seconds /= 2
            self._calls /= 2

    @property
    def saturated_seconds(self) -> float:
        """Seconds for which slots have been saturated without interruption."""
        return 0.0 if self._first_saturated is None else self._seconds() - self._first_saturated

    def record_call(self, host: str, duration_ms: int | None) -> None:
        """Add a call that has ended."""
        if self._saturated_since is not None:
            self._calls += 1
        if duration_ms is None:
            return
        if self._all is None:
            self._all = MovingAverage()
        self._all.add(duration_ms / 1000)
        self._hosts.setdefault(host, MovingAverage()).add(duration_ms / 1000)
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_MEASURED_HOSTS:
            self._hosts.popitem(last=False)

    def capacity(self, concurrency: int, per_host: int) -> Capacity:
        """Return the capacity with the given limits."""
        seconds = self._saturated_seconds
        if self._saturated_since is not None:
            seconds += self._seconds() - self._saturated_since
        measured = self._calls >= MIN_SAMPLES and seconds > 0
        return Capacity(
            concurrency=concurrency,
            per_host=per_host,
            rate=self._calls / seconds if measured else None,
            duration=None if self._all is None else self._all.value,
            durations={host: mean.value for host, mean in self._hosts.items()},
        )
