"""The application of host settings: the maximum number of a daemon's calls to a host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from itertools import takewhile

from attrs import define, field

from ..core.times import MINUTE
from .operations import SettingsSnapshot
from .settings import ALL_HOSTS, HostSettings


@define(eq=False, kw_only=True)
class HostLimits:
    """Limits of calls to each host.

    Each daemon of a fleet takes its share of a limit: the limit divided by the number of daemons;
    the first daemons take one more each if there is a remainder.

    :param per_host: the maximum number of calls in flight to a host without settings.
    :param seconds: returns the time of the monotonic clock.
    :param now: returns the wall-clock time: seconds since 1970.
    """

    _per_host: int
    _seconds: Callable[[], float]
    _now: Callable[[], float]
    _snapshot: SettingsSnapshot = field(factory=SettingsSnapshot, init=False)
    _by_host: Mapping[str, HostSettings] = field(factory=dict, init=False)
    # The hosts whose settings have changed and are not loaded yet, each with its last change.
    _changed: dict[str, int] = field(factory=dict, init=False)
    # The start times of the last minute's calls, for each host with a limit per minute; the host
    # called longest ago first.
    _windows: dict[str, deque[float]] = field(factory=dict, init=False)

    def expect(self, hosts: Iterable[str], change: int) -> None:
        """Let no call to these hosts start until their settings, which have changed, are loaded.

        :param change: the number of the change; later changes have higher numbers.
        """
        self._changed.update(dict.fromkeys(hosts, change))

    def apply(self, snapshot: SettingsSnapshot, change: int = 0) -> None:
        """Replace the settings.

        :param change: the number of the last change that the settings certainly contain.
        """
        self._changed = {host: number for host, number in self._changed.items() if number > change}
        self._snapshot = snapshot
        self._by_host = {settings.host: settings for settings in snapshot.settings}
        self._windows = {
            host: window
            for host, window in self._windows.items()
            if self._setting(host, "max_per_minute") is not None
        }

    @property
    def has_settings(self) -> bool:
        """Return whether there are any settings."""
        return bool(self._by_host)

    @property
    def all_paused(self) -> bool:
        """Return whether no call to any host may start."""
        settings = self._by_host.get(ALL_HOSTS)
        return settings is not None and settings.is_paused(self._now())

    @property
    def paused_hosts(self) -> int:
        """The number of hosts paused by settings of their own."""
        now = self._now()
        return sum(
            settings.is_paused(now) for host, settings in self._by_host.items() if host != ALL_HOSTS
        )

    def is_paused(self, host: str) -> bool:
        """Return whether no call to a host may start."""
        if self._changed and not self._changed.keys().isdisjoint((host, ALL_HOSTS)):
            # The host may be paused by now.
            return True
        if not self._by_host:
            return False
        settings = self._by_host.get(host)
        return self.all_paused or (settings is not None and settings.is_paused(self._now()))

    def may_limit(self, hosts: Container[str]) -> bool:
        """Return whether settings apply to at least one of some hosts."""
        return ALL_HOSTS in self._by_host or any(host in hosts for host in self._by_host)

    def max_in_flight(self, host: str, in_flight: int) -> int:
        """Return the maximum number of calls in flight to a host.

        :param in_flight: the current number.
        """
        if not self._by_host and not self._changed:
            return self._per_host
        if self.is_paused(host):
            return 0
        most = self._setting(host, "max_concurrent")
        limit = self._per_host if most is None else self._share(most)
        per_minute = self._setting(host, "max_per_minute")
        if per_minute is not None:
            limit = min(limit, in_flight + self._share(per_minute) - self._recent(host))
        return limit

    def record_start(self, host: str) -> None:
        """Count a call that starts, and forget hosts without a call in the last minute."""
        if self._setting(host, "max_per_minute") is None:
            return
        now = self._seconds()
        window = self._windows.pop(host, None) or deque()
        window.append(now)
        self._windows[host] = window
        since = now - MINUTE
        for other in list(takewhile(lambda one: not self._has_call(one, since), self._windows)):
            del self._windows[other]

    def withdraw_start(self, host: str) -> None:
        """Remove a call that was not made from the count."""
        if window := self._windows.get(host):
            window.pop()

    def _has_call(self, host: str, since: float) -> bool:
        """Return whether the last call to a host began after a time."""
        window = self._windows[host]
        return bool(window) and window[-1] > since

    def _setting(self, host: str, name: str) -> int | None:
        """Return a setting of a host, or the setting for all hosts if the host has none."""
        for holder in (host, ALL_HOSTS):
            value: int | None = getattr(self._by_host.get(holder), name, None)
            if value is not None:
                return value
        return None

    def _share(self, limit: int) -> int:
        daemons, rank = self._snapshot.daemons, self._snapshot.rank
        return limit // daemons + (rank < limit % daemons)

    def _recent(self, host: str) -> int:
        window = self._windows.get(host)
        if window is None:
            return 0
        since = self._seconds() - MINUTE
        while window and window[0] <= since:
            window.popleft()
        return len(window)
