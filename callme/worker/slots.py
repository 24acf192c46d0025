"""The slots for calls in flight, in total and by host."""

from __future__ import annotations

from attrs import define, field


@define(eq=False, kw_only=True)
class Slots:
    """Slots for calls in flight.

    :ivar concurrency: the maximum number of calls in flight.
    :ivar per_host: the maximum number of calls in flight to one host and port.
    :ivar in_flight: the number of calls in flight by host, without zeros.
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

        There is no reserve if a single host may occupy all slots.
        """
        return max(0, min(self.concurrency // 2, self.concurrency - self.per_host))

    @property
    def last_places(self) -> int:
        """The number of last free slots, which only hosts with hardly any calls in flight get."""
        return max(0, min(self.concurrency // 16, self.concurrency - self.per_host - self.reserve))

    @property
    def few(self) -> int:
        """The number of slots that an untrusted host may take of the reserve."""
        return min(self.per_host, max(4, self.per_host // 8))

    def take(self, host: str) -> None:
        """Occupy a slot with a call to a host."""
        self.free -= 1
        self.in_flight[host] = self.in_flight.get(host, 0) + 1

    def release(self, host: str) -> None:
        """Free the slot of a call to a host."""
        self.free += 1
        self.in_flight[host] -= 1
        if not self.in_flight[host]:
            del self.in_flight[host]
