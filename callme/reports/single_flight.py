"""Single-flight lookups: one cached lookup at a time, shared by all clients of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


@define(eq=False, kw_only=True)
class SingleFlight(Generic[T]):
    """Costly lookup that runs once for all concurrent clients.

    A result stays fresh for a time that depends on the cost of its lookup, so that lookups take
    a bounded share of the time for any number of clients. A client that disconnects, or that
    stops waiting, does not cancel the lookup.

    :param fetch: performs the lookup.
    :param ttl: returns the time for which a result stays fresh, given the duration of its lookup,
        both in seconds.
    :param max_stale_seconds: the age up to which a stale result may be returned.
    :param failure_ttl_seconds: the time for which a failed lookup is not repeated.
    :param clock: the monotonic clock.
    :param lock: serializes the lookups that share it, in the order of the requests.
    """

    _fetch: Callable[[], Coroutine[Deferred[Any], Any, T]]
    _ttl: Callable[[float], float]
    _clock: IReactorTime
    _max_stale_seconds: float = math.inf
    _failure_ttl_seconds: float = 0.0
    _lock: DeferredLock = field(factory=DeferredLock)
    in_flight: bool = field(default=False, init=False)
    _waiters: list[Deferred[T]] = field(factory=list, init=False)
    _last: T | None = field(default=None, init=False)
    _failure: Failure | None = field(default=None, init=False)
    # Times of the monotonic clock.
    _fresh_until: float = field(default=-math.inf, init=False)
    _usable_until: float = field(default=-math.inf, init=False)

    def get(self) -> Deferred[T]:
        """Return a fresh result; the Deferred fails if the lookup does."""
        self.refresh()
        waiter: Deferred[T] = Deferred()
        if not self.in_flight:
            return self._fire(waiter)
        self._waiters.append(waiter)
        return waiter

    async def get_within(self, seconds: float) -> T | None:
        """Return a fresh result, or :meth:`last` if the lookup takes longer than some seconds."""
        try:
            return await self.get().addTimeout(seconds, self._clock)
        except defer.TimeoutError:
            return self.last()

    def last(self) -> T | None:
        """Return the last result; ``None`` if it is missing or too old."""
        return self._last if self._clock.seconds() < self._usable_until else None

    def refresh(self) -> None:
        """Start a lookup if none is in flight and the last result is not fresh."""
        if not self.in_flight and self._clock.seconds() >= self._fresh_until:
            self.in_flight = True
            # No client's Deferred is part of this chain, so that no client can cancel the lookup.
            self._lock.run(self._look_up)

    async def _look_up(self) -> None:
        started_at = self._clock.seconds()
        try:
            self._last = await self._fetch()
        except Exception:
            self._failure = Failure()
            self._fresh_until = self._clock.seconds() + self._failure_ttl_seconds
        else:
            self._failure = None
            ended_at = self._clock.seconds()
            self._fresh_until = ended_at + self._ttl(ended_at - started_at)
            self._usable_until = ended_at + self._max_stale_seconds
        self.in_flight = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._fire(waiter)

    def _fire(self, waiter: Deferred[T]) -> Deferred[T]:
        result: Any = self._last
        if self._failure is None:
            waiter.callback(result)
        else:
            waiter.errback(self._failure)
        return waiter
