"""The slots for calls in flight, in all and for each host."""

from __future__ import annotations

from attrs import define, field


@define(eq=False, kw_only=True)
class Slots:
    """The slots for calls in flight.

    :ivar concurrency: the maximum number of calls in flight.
    :ivar per_host: the maximum number of calls in flight to one host and port.
    :ivar in_flight: the number of calls in flight by host; hosts without any are left out.
    :ivar free: the number of free slots.
    """

    concurrency: int
    per_host: int
    in_flight: dict[str, int] = field(factory=dict, init=False)
    free: int = field(init=False)

    @free.default
    def _all_free(self) -> int:
        return self.concurrency

    @property
    def reserve(self) -> int:
        """The number of slots that hosts which may hang must leave free.

        It is 0 if a single host may take all slots.
        """
        return max(0, min(self.concurrency // 2, self.concurrency - self.per_host))

    @property
    def last_places(self) -> int:
        """The number of slots beyond the reserve that are only for hosts with hardly any calls."""
        return max(0, min(self.concurrency // 16, self.concurrency - self.per_host - self.reserve))

    @property
    def few(self) -> int:
        """The number of calls in flight that count as few for one host."""
        return min(self.per_host, max(4, self.per_host // 8))

    def take(self, host: str) -> None:
        """Give a slot to a call to this host."""
        self.free -= 1
        self.in_flight[host] = self.in_flight.get(host, 0) + 1

    def release(self, host: str) -> None:
        """Free the slot of a call to this host."""
        self.free += 1
        self.in_flight[host] -= 1
        if not self.in_flight[host]:
            del self.in_flight[host]
