"""The pool of idle connections: which of them serves a request, and which must be closed."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import define, field, frozen

IDLE_SECONDS = 1.0
"""How long a connection may be idle: enough for a burst, and shorter than the keep-alive of
common servers, which would close it just as it is used again."""
MAX_AGE_SECONDS = 5.0
"""How old a connection may be that serves another request. A server with few processes serves
as many connections at a time, so that the connections beside them wait until these are closed."""
DISTRUST_SECONDS = 600.0
"""How long no connection of an origin is kept after it closed one just as it was used again."""
MAX_DISTRUSTED = 10_000
"""How many origins are remembered as distrusted."""


@frozen(kw_only=True, cache_hash=True)
class Origin:
    """A scheme, a host and a port (RFC 9110, section 4.3.1)."""

    scheme: str
    host: str
    port: int


class Pooled(Protocol):
    """A connection, as the pool sees it.

    :ivar opened_at: when it was made, by the monotonic clock.
    """

    origin: Origin
    opened_at: float


C = TypeVar("C", bound=Pooled)


@frozen
class Assignment(Generic[C]):
    """The outcome of a decision about connections.

    :ivar serves: the connection that serves the request; ``None`` where a new one must.
    :ivar closes: connections that are the pool's no more, and must be closed.
    """

    serves: C | None
    closes: list[C]


@define(eq=False)
class Pool(Generic[C]):
    """The connections that serve no request. It decides, and does no I/O.

    :param max_per_origin: how many reusable connections of one origin are kept.
    :param max_idle: how many connections are kept altogether.
    """

    _max_per_origin: int
    _max_idle: int
    # Since when each is idle, the longest idle first.
    _idle: dict[C, float] = field(factory=dict, init=False)
    # Those that may serve another request; of each origin, the longest idle first.
    _reusable: dict[Origin, list[C]] = field(factory=dict, init=False)
    # Until when origins are distrusted, the longest distrusted first.
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

        1. A released connection is kept: to serve again, or, where it is not reusable, until
           its endpoint has closed it: the side that closes first has to remember the
           connection for a minute, and for a client that is a port that it cannot use.
        2. A request is served by the reusable connection of its origin that was idle the
           shortest time. One that was idle too long, or is too old, serves none.
        3. What was idle too long is closed, and of what is too many the longest idle.

        :param now: the monotonic clock, seconds.
        :param wanted: the origin of a request.
        :param released: a connection whose response has ended.
        :param reusable: whether that one may serve another request.
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
        """Forget a connection, if it is idle."""
        self._idle.pop(connection, None)
        connections = self._reusable.get(connection.origin, [])
        if connection in connections:
            connections.remove(connection)
            if not connections:
                del self._reusable[connection.origin]

    def distrust(self, origin: Origin, now: float) -> list[C]:
        """Keep no connection of an origin for a while; return those that must be closed now."""
        self._distrusted.pop(origin, None)
        self._distrusted[origin] = now + DISTRUST_SECONDS
        if len(self._distrusted) > MAX_DISTRUSTED:
            del self._distrusted[next(iter(self._distrusted))]
        closes = list(self._reusable.get(origin, []))
        for connection in closes:
            self.remove(connection)
        return closes

    def is_distrusted(self, origin: Origin, now: float) -> bool:
        """Return whether no connection of an origin may be kept."""
        until = self._distrusted.get(origin)
        if until is None:
            return False
        if until <= now:
            del self._distrusted[origin]
            return False
        return True

    def next_expiry(self) -> float | None:
        """Return when the longest idle connection must be closed; ``None`` where none is idle."""
        return next(iter(self._idle.values())) + IDLE_SECONDS if self._idle else None
