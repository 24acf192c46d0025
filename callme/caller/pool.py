"""The pool of idle connections: decides which one is reused and which ones are closed."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import define, field, frozen

IDLE_SECONDS = 1.0
"""Maximum idle time of a connection in seconds: long enough for a burst, and shorter than the
keep-alive timeout of common servers, which could close it just as it is reused."""
MAX_AGE_SECONDS = 5.0
"""Maximum age of a reused connection in seconds. A server with few processes accepts further
connections only when earlier ones are closed."""
DISTRUST_SECONDS = 600.0
"""Seconds without reuse of an origin's connections after it closed one as it was reused."""
MAX_DISTRUSTED = 10_000
"""Maximum number of origins tracked as distrusted."""


@frozen(kw_only=True, cache_hash=True)
class Origin:
    """Origin of a URL: scheme, host and port (RFC 9110, section 4.3.1)."""

    scheme: str
    host: str
    port: int


class Pooled(Protocol):
    """Interface of a connection in the pool.

    :ivar opened_at: the time of its creation by the monotonic clock, in seconds.
    """

    origin: Origin
    opened_at: float


C = TypeVar("C", bound=Pooled)


@frozen
class Assignment(Generic[C]):
    """The outcome of a decision about connections.

    :ivar serves: the connection that serves the request; ``None`` if a new one is needed.
    :ivar closes: connections that have left the pool, and that the caller must close.
    """

    serves: C | None
    closes: list[C]


@define(eq=False)
class Pool(Generic[C]):
    """Idle connections, and the decisions about them, without I/O.

    :param max_per_origin: maximum reusable connections of one origin.
    :param max_idle: maximum idle connections altogether.
    """

    _max_per_origin: int
    _max_idle: int
    # The time since which each connection is idle, the longest idle first.
    _idle: dict[C, float] = field(factory=dict, init=False)
    # The connections that may serve another request; of each origin, the longest idle first.
    _reusable: dict[Origin, list[C]] = field(factory=dict, init=False)
    # The time until which each origin is distrusted, the first to end first.
    _distrusted: dict[Origin, float] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._idle)

    def assign(
        self,
        now: float,
        *,
        wanted: Origin | None = None,
        released: C | None = None,
        reusable: bool = False,
    ) -> Assignment[C]:
        """Decide which connection serves a request, and which ones must be closed.

        1. A released connection becomes idle. If it is not reusable, it stays open for a while so
           that the endpoint can close it first: the side that closes first keeps the connection in
           the state TIME_WAIT for a minute, which occupies one of callme's local ports.
        2. A request is served by the reusable connection of its origin with the shortest idle time.
           A connection that exceeds the maximum idle time or the maximum age serves no request.
        3. Connections that exceed the maximum idle time are closed, and then those with the
           longest idle time, until the pool is within its size.

        :param now: the time of the monotonic clock, in seconds.
        :param wanted: the origin of a request.
        :param released: a connection whose response has ended.
        :param reusable: whether the released connection may serve another request.
        """
        closes: list[C] = []
        serves = None
        if released is not None:
            self._keep(released, now, reusable, closes)
        while wanted is not None and (connections := self._reusable.get(wanted)):
            connection = connections[-1]
            since = self._idle[connection]
            self.remove(connection)
            if now - since < IDLE_SECONDS and now - connection.opened_at < MAX_AGE_SECONDS:
                serves = connection
                break
            closes.append(connection)
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if now - since < IDLE_SECONDS and len(self._idle) <= self._max_idle:
                break
            self.remove(connection)
            closes.append(connection)
        return Assignment(serves, closes)

    def _keep(self, connection: C, now: float, reusable: bool, closes: list[C]) -> None:
        self._idle[connection] = now
        if not reusable or self.is_distrusted(connection.origin, now):
            return
        connections = self._reusable.setdefault(connection.origin, [])
        connections.append(connection)
        if len(connections) > self._max_per_origin:
            closes.append(connections[0])
            self.remove(connections[0])

    def remove(self, connection: C) -> None:
        """Remove a connection from the pool, if it is idle."""
        self._idle.pop(connection, None)
        connections = self._reusable.get(connection.origin, [])
        if connection in connections:
            connections.remove(connection)
            if not connections:
                del self._reusable[connection.origin]

    def distrust(self, origin: Origin, now: float) -> list[C]:
        """Stop reusing connections of an origin; return those that must be closed now."""
        self._distrusted.pop(origin, None)
        self._distrusted[origin] = now + DISTRUST_SECONDS
        if len(self._distrusted) > MAX_DISTRUSTED:
            del self._distrusted[next(iter(self._distrusted))]
        closes = list(self._reusable.get(origin, []))
        for connection in closes:
            self.remove(connection)
        return closes

    def is_distrusted(self, origin: Origin, now: float) -> bool:
        """Return whether connections of an origin must not be reused."""
        until = self._distrusted.get(origin)
        if until is None:
            return False
        if until <= now:
            del self._distrusted[origin]
            return False
        return True

    def next_expiry(self) -> float | None:
        """Return the time when the next idle connection must be closed; ``None`` without one."""
        return next(iter(self._idle.values())) + IDLE_SECONDS if self._idle else None
