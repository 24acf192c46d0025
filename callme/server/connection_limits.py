"""Limits on the number of HTTP connections, and on the bytes buffered for them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import Generic, TypeVar

from attrs import define, field

C = TypeVar("C")

EVICTION_HEADROOM = 64
"""Minimum number of connections beyond the limit that may be open while evicted ones close.

An evicted connection is closed only in the next turn of the reactor, so that connections that
arrive in the same turn exceed the limit.
"""
MAX_CANDIDATES = 16
"""Maximum connections of a group that are considered for an eviction, the oldest state first."""
MIN_IDLE_SECONDS = 1.0
"""Minimum idle time in seconds before an eviction, because a request may be on its way."""
MIN_READING_SECONDS = 2.0
"""Minimum age in seconds of an incomplete request before an eviction, so that data that has been
sent is read first even if many connections arrive together."""


@define(eq=False)
class BufferBudget(Generic[C]):
    """Budget of bytes that are buffered for connections.

    :ivar max_bytes: the limit for all connections together.
    """

    max_bytes: int
    _usage: dict[C, int] = field(factory=dict, init=False)
    _total: int = field(default=0, init=False)

    def set_usage(self, connection: C, size: int) -> None:
        """Set the number of bytes that are buffered for a connection."""
        self._total += size - self._usage.pop(connection, 0)
        if size:
            self._usage[connection] = size

    @property
    def exceeded(self) -> bool:
        """True if the buffered bytes exceed the limit."""
        return self._total > self.max_bytes

    def largest(self, eligible: Callable[[C], bool]) -> C | None:
        """Return the eligible connection with the most buffered bytes, if any."""
        candidates = [connection for connection in self._usage if eligible(connection)]
        return max(candidates, key=self._usage.__getitem__, default=None)


@define(eq=False, kw_only=True)
class ConnectionRegistry(Generic[C]):
    """Registry of the open connections, in the order of eviction.

    Connections that have been idle for some time are evicted first, followed by connections whose
    request has been expected or incomplete for some time; within each group, the longest in that
    state is first. A connection that waits for its response, or has sent unread data, is never
    evicted.

    If none may be evicted, a connection beyond the limit is surplus: it stays open only until the
    head of its request is read and answered.

    :ivar max_connections: the limit.
    :ivar headroom: the number of connections that may be open beyond the limit: evicted ones that
        are being closed, and surplus ones, up to half of the headroom.
    :ivar connections: all open connections.
    """

    max_connections: int
    headroom: int = EVICTION_HEADROOM
    connections: set[C] = field(factory=set, init=False)
    _surplus: set[C] = field(factory=set, init=False)
    # The time since which each connection is idle, or its request expected or incomplete, the
    # earliest first.
    _idle: dict[C, float] = field(factory=dict, init=False)
    _reading: dict[C, float] = field(factory=dict, init=False)
    # The same for surplus connections, whose times are irrelevant.
    _idle_surplus: dict[C, float] = field(factory=dict, init=False)
    _reading_surplus: dict[C, float] = field(factory=dict, init=False)

    def add(self, connection: C, now: float, *, is_surplus: bool = False) -> None:
        """Add a new connection, whose first request is expected.

        :param now: seconds of a monotonic clock.
        :param is_surplus: whether the connection is beyond the limit.
        """
        self.connections.add(connection)
        if is_surplus:
            self._surplus.add(connection)
        self.mark_reading(connection, now)

    def remove(self, connection: C) -> None:
        """Remove a connection that is closed."""
        self.mark_busy(connection)
        self.connections.discard(connection)
        self._surplus.discard(connection)

    def mark_idle(self, connection: C, now: float) -> None:
        """Record that a connection received its response."""
        self.mark_busy(connection)
        idle = self._idle_surplus if connection in self._surplus else self._idle
        idle[connection] = now

    def mark_reading(self, connection: C, now: float) -> None:
        """Record that a request has begun to arrive."""
        self.mark_busy(connection)
        reading = self._reading_surplus if connection in self._surplus else self._reading
        reading[connection] = now

    def mark_busy(self, connection: C) -> None:
        """Record that a connection waits for its response, and must not be evicted."""
        for group in (self._idle, self._reading, self._idle_surplus, self._reading_surplus):
            group.pop(connection, None)

    @property
    def full(self) -> bool:
        """True if another connection requires an eviction."""
        return len(self.connections) - len(self._surplus) >= self.max_connections

    @property
    def exhausted(self) -> bool:
        """True if no further connection may be open, not even as surplus."""
        return len(self.connections) >= self.max_connections + self.headroom

    def pop_evictable(self, now: float, has_unread: Callable[[C], bool]) -> C | None:
        """Remove and return a connection to evict.

        :param has_unread: returns whether a connection has sent unread data, which may be a request
            that arrived long ago while the server was busy.
        :return: ``None`` if none may be evicted, or the headroom is exhausted.
        """
        if self.exhausted:
            return None
        for group, min_seconds in (
            (self._idle, MIN_IDLE_SECONDS),
            (self._reading, MIN_READING_SECONDS),
        ):
            for connection, since in islice(group.items(), MAX_CANDIDATES):
                if now - since < min_seconds:
                    break
                if not has_unread(connection):
                    self.mark_busy(connection)
                    return connection
        return None

    def pop_surplus(self) -> C | None:
        """Remove and return the surplus connection to drop for another one.

        :return: ``None`` while there is room for another one.
        """
        if len(self._surplus) < max(1, self.headroom // 2):
            return None
        # Connections that have received their response come first.
        connection = next(chain(self._idle_surplus, self._reading_surplus), None)
        if connection is not None:
            self.mark_busy(connection)
        return connection
