"""Limits on HTTP connections: how many may be open, and how many bytes they may buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field

C = TypeVar("C")

EVICTION_HEADROOM = 64
"""Minimum number of connections that may be open beyond the limit while others are closed.

A connection that is evicted is closed only in the next turn of the reactor, so each connection
that arrives in the same turn needs room of its own.
"""


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

    Idle connections go first, then those whose request is still arriving; within each group the
    one longest in that state. A connection that waits for its response is never evicted.

    :ivar max_connections: the limit.
    :ivar headroom: how many more may be open while evicted ones are being closed.
    :ivar connections: all open connections.
    """

    max_connections: int
    headroom: int = EVICTION_HEADROOM
    connections: set[C] = field(factory=set, init=False)
    # Dictionaries serve as ordered sets.
    _idle: dict[C, None] = field(factory=dict, init=False)
    _reading: dict[C, None] = field(factory=dict, init=False)

    def add(self, connection: C) -> None:
        """Add a new connection, whose first request is expected."""
        self.connections.add(connection)
        self._reading[connection] = None

    def remove(self, connection: C) -> None:
        """Remove a connection that is closed."""
        self.connections.discard(connection)
        self.mark_busy(connection)

    def mark_idle(self, connection: C) -> None:
        """Record that a connection got its response."""
        self._reading.pop(connection, None)
        self._idle[connection] = None

    def mark_reading(self, connection: C) -> None:
        """Record that a request starts to arrive."""
        self._idle.pop(connection, None)
        self._reading[connection] = None

    def mark_busy(self, connection: C) -> None:
        """Record that a connection waits for its response, and must not be evicted."""
        self._reading.pop(connection, None)
        self._idle.pop(connection, None)

    @property
    def full(self) -> bool:
        """True if another connection needs an eviction."""
        return len(self.connections) >= self.max_connections

    def pop_evictable(self) -> C | None:
        """Return a connection to evict, which is not returned again.

        :return: ``None`` when none may be evicted or the headroom is used up.
        """
        if len(self.connections) >= self.max_connections + self.headroom:
            return None
        connection = next(iter(self._idle), None) or next(iter(self._reading), None)
        if connection is not None:
            self.mark_busy(connection)
        return connection
