"""Limits on HTTP connections: how many may be open, and how many bytes they may buffer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import Generic, TypeVar

from attrs import define, field

C = TypeVar("C")

EVICTION_HEADROOM = 64
"""Minimum number of connections that may be open beyond the limit while others are closed.

A connection that is evicted is closed only in the next turn of the reactor, so each connection
that arrives in the same turn needs room of its own.
"""
MAX_CANDIDATES = 16
"""Connections of a group that are considered for an eviction, the longest in their state first."""
MIN_IDLE_SECONDS = 1.0
"""Time that a connection is idle before it may be evicted: its next request may be on its way."""
MIN_READING_SECONDS = 2.0
"""Time that the request of a connection has to arrive before it may be evicted: what has been sent
is read first, however many connections arrive together."""


@define(eq=False)
class BufferBudget(Generic[C]):
    """The bytes buffered for each connection, and their limit.

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
        """True if more bytes are buffered than the limit."""
        return self._total > self.max_bytes

    def largest(self, eligible: Callable[[C], bool]) -> C | None:
        """Return the eligible connection with the most bytes buffered; ``None`` without one."""
        candidates = [connection for connection in self._usage if eligible(connection)]
        return max(candidates, key=self._usage.__getitem__, default=None)


@define(eq=False, kw_only=True)
class ConnectionRegistry(Generic[C]):
    """The open connections, in the order in which they may be evicted.

    Connections that have been idle for some time go first, then those whose request has been
    expected or arriving for some time; within each group the one longest in that state. A
    connection that waits for its response, or has sent what is not read yet, is never evicted.

    Where none may be evicted, a connection beyond the limit is surplus: it is open only for as long
    as it takes to read the head of its request, and to respond to it.

    :ivar max_connections: the limit.
    :ivar headroom: how many more may be open: evicted ones that are being closed, and up to half
        of it surplus ones.
    :ivar connections: all open connections.
    """

    max_connections: int
    headroom: int = EVICTION_HEADROOM
    connections: set[C] = field(factory=set, init=False)
    _surplus: set[C] = field(factory=set, init=False)
    # Since when each is idle, or its request is expected or arriving; the longest first.
    _idle: dict[C, float] = field(factory=dict, init=False)
    _reading: dict[C, float] = field(factory=dict, init=False)
    # The same of surplus connections, whose times do not matter.
    _idle_surplus: dict[C, float] = field(factory=dict, init=False)
    _reading_surplus: dict[C, float] = field(factory=dict, init=False)

    def add(self, connection: C, now: float, *, is_surplus: bool = False) -> None:
        """Add a new connection, whose first request is expected.

        :param now: seconds on the clock of all calls.
        :param is_surplus: whether it is beyond the limit.
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
        """Record that a connection got its response."""
        self.mark_busy(connection)
        idle = self._idle_surplus if connection in self._surplus else self._idle
        idle[connection] = now

    def mark_reading(self, connection: C, now: float) -> None:
        """Record that a request starts to arrive."""
        self.mark_busy(connection)
        reading = self._reading_surplus if connection in self._surplus else self._reading
        reading[connection] = now

    def mark_busy(self, connection: C) -> None:
        """Record that a connection waits for its response, and must not be evicted."""
        for group in (self._idle, self._reading, self._idle_surplus, self._reading_surplus):
            group.pop(connection, None)

    @property
    def full(self) -> bool:
        """True if another connection needs an eviction."""
        return len(self.connections) - len(self._surplus) >= self.max_connections

    @property
    def exhausted(self) -> bool:
        """True if no further connection may be open, not even as surplus."""
        return len(self.connections) >= self.max_connections + self.headroom

    def pop_evictable(self, now: float, has_unread: Callable[[C], bool]) -> C | None:
        """Return a connection to evict, which is not returned again.

        :param has_unread: returns whether a connection has sent what is not read yet: while the
            server is busy, that may be a request which arrived long ago.
        :return: ``None`` when none may be evicted or the headroom is used up.
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
        """Return the surplus connection to drop for another one, which is not returned again.

        :return: ``None`` while there is room for it.
        """
        if len(self._surplus) < max(1, self.headroom // 2):
            return None
        # First those that have their response.
        connection = next(chain(self._idle_surplus, self._reading_surplus), None)
        if connection is not None:
            self.mark_busy(connection)
        return connection
