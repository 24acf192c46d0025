"""The connections that are open, and which of them go when there is no room for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field

C = TypeVar("C")


@define(eq=False)
class BufferBudget(Generic[C]):
    """Counts the bytes that are kept for each connection.

    :param most: how many there may be for all of them together.
    """

    most: int
    _sizes: dict[C, int] = field(factory=dict, init=False)
    _total: int = field(default=0, init=False)

    def hold(self, one: C, size: int) -> None:
        """Say how many bytes are kept for one now."""
        self._total += size - self._sizes.pop(one, 0)
        if size:
            self._sizes[one] = size

    @property
    def exceeded(self) -> bool:
        """Whether somebody must go."""
        return self._total > self.most

    def largest(self, may_go: Callable[[C], bool]) -> C | None:
        """Return the one that most is kept for, of those that may go."""
        going = [one for one in self._sizes if may_go(one)]
        return max(going, key=self._sizes.__getitem__, default=None)


EVICTION_HEADROOM = 64
"""Connections that may be open beyond the most there may be, while they are being closed: at
least. A connection is closed in the next turn of the reactor, and all that come in one turn need
another to go for them."""


@define(eq=False)
class ConnectionRegistry(Generic[C]):
    """Keeps connections in the order in which they may be closed to make room.

    First those whose request has been answered, then those whose request is taking its time to
    arrive, the longest in that state first; never those that wait for their answer.

    :param most: how many there may be.
    :param going: how many beyond that, while others are being closed for them.
    :ivar everybody: all that are open.
    """

    most: int
    going: int = EVICTION_HEADROOM
    connections: set[C] = field(factory=set, init=False)
    # Dictionaries for their order.
    _idle: dict[C, None] = field(factory=dict, init=False)
    _asking: dict[C, None] = field(factory=dict, init=False)

    def enter(self, one: C) -> None:
        """Take in a new one, of which a request is expected."""
        self.connections.add(one)
        self._asking[one] = None

    def leave(self, one: C) -> None:
        """Forget one that is closed."""
        self.connections.discard(one)
        self.waits(one)

    def idles(self, one: C) -> None:
        """Say that one has had its answer."""
        self._asking.pop(one, None)
        self._idle[one] = None

    def asks(self, one: C) -> None:
        """Say that a request begins to arrive."""
        self._idle.pop(one, None)
        self._asking[one] = None

    def waits(self, one: C) -> None:
        """Say that one waits for an answer."""
        self._asking.pop(one, None)
        self._idle.pop(one, None)

    @property
    def full(self) -> bool:
        """Whether there is no room for another unless one goes."""
        return len(self.connections) >= self.most

    def pop_evictable(self) -> C | None:
        """Choose one that is to be closed, and is not chosen again; ``None`` if none may."""
        if len(self.connections) >= self.most + self.going:
            return None
        one = next(iter(self._idle), None) or next(iter(self._asking), None)
        if one is not None:
            self.waits(one)
        return one
