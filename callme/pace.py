"""How fast calls were made lately: the rate while there was no room for more, mean durations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field

from .core.capacity import Capacity

LATELY_SECONDS = 60.0
"""After so many seconds without room, what was seen before counts half."""
ENOUGH_CALLS = 100
"""Calls that must have ended in such seconds before they are a rate."""
LATEST_CALLS = 100
"""A mean duration is one of about so many of the latest calls."""
MAX_HOSTS = 1000
"""Hosts whose durations are kept: those called last."""


@define
class Mean:
    """The mean of the latest values."""

    value: float = 0.0
    _count: int = 0

    def add(self, value: float) -> None:
        """Count one more value."""
        self._count = min(self._count + 1, LATEST_CALLS)
        self.value += (value - self.value) / self._count


@define(eq=False)
class Pace:
    """What the dispatcher has seen of its calls.

    :param seconds: a clock that nobody sets.
    """

    _seconds: Callable[[], float]
    _short_since: float | None = field(default=None, init=False)
    # While room was short: for how long, and how many calls ended.
    _short: float = field(default=0.0, init=False)
    _calls: float = field(default=0.0, init=False)
    _all: Mean | None = field(default=None, init=False)
    _hosts: OrderedDict[str, Mean] = field(factory=OrderedDict, init=False)

    def room(self, *, short: bool) -> None:
        """Say whether calls wait for a place that their own host would give them."""
        now = self._seconds()
        if self._short_since is not None:
            self._short += now - self._short_since
        self._short_since = now if short else None
        if self._short > LATELY_SECONDS:
            self._short, self._calls = self._short / 2, self._calls / 2

    def ended(self, host: str, duration_ms: int | None) -> None:
        """Say that a call has ended."""
        if self._short_since is not None:
            self._calls += 1
        if duration_ms is None:
            return
        if self._all is None:
            self._all = Mean()
        self._all.add(duration_ms / 1000)
        self._hosts.setdefault(host, Mean()).add(duration_ms / 1000)
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)

    def capacity(self, concurrency: int, per_host: int) -> Capacity:
        """Return how fast calls can be made, by what was seen and these limits."""
        short = self._short
        if self._short_since is not None:
            short += self._seconds() - self._short_since
        measured = self._calls >= ENOUGH_CALLS and short > 0
        return Capacity(
            concurrency=concurrency,
            per_host=per_host,
            rate=self._calls / short if measured else None,
            duration=None if self._all is None else self._all.value,
            durations={host: mean.value for host, mean in self._hosts.items()},
        )
