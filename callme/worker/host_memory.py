"""The memory of hosts that have responded: claims prefer them to hosts that may hang."""

from __future__ import annotations

from attrs import define, field

MAX_TRACKED_HOSTS = 10_000
"""Maximum number of hosts whose last call is remembered."""


@define(eq=False)
class HostMemory:
    """The hosts that have responded to calls.

    :ivar responsive: the hosts that have responded since the last tick.
    :ivar recently_responsive: the hosts that responded to their last call, the one called
        longest ago first; at most :data:`MAX_TRACKED_HOSTS`.
    """

    responsive: set[str] = field(factory=set, init=False)
    recently_responsive: dict[str, None] = field(factory=dict, init=False)

    def record_call(self, host: str, *, responded: bool) -> None:
        """Remember whether a host has responded to a call."""
        self.recently_responsive.pop(host, None)
        if responded:
            self.responsive.add(host)
            self.recently_responsive[host] = None
            if len(self.recently_responsive) > MAX_TRACKED_HOSTS:
                del self.recently_responsive[next(iter(self.recently_responsive))]

    def begin_minute(self) -> None:
        """Forget which hosts have responded since the last tick: they may hang by now."""
        self.responsive.clear()
