"""Forecasts of the scheduled calls, read from the store once for all clients that ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from ..core.times import MINUTE, floor_to_minute
from ..store.database import Store
from ..store.interface import MAX_LOADS
from ..store.stats import due_load
from ..worker.throughput import Capacity
from .forecast import MAX_OVERLOADS, Forecast, find_overloads, fleet_load, saturated_span
from .single_flight import SingleFlight

COST_FACTOR = 20
"""How many times as long as its read took a forecast stays fresh."""
MAX_TTL_SECONDS = 60.0
"""The longest time for which a forecast stays fresh."""
CACHE_SIZE = 4
"""Forecasts in the cache, each of another number of hours."""


@define(eq=False, kw_only=True)
class Forecaster:
    """Forecasts the calls that the store has scheduled.

    To count a million tasks takes the database from 60 ms to a second. So that many clients cost
    no more than one, and leave the database and its connections to other work, one read runs at
    a time, and the reads of one number of hours take at most a twentieth of the time.

    :param capacity: returns how fast calls can be made.
    :param clock: the monotonic clock.
    :param now: the wall clock, seconds since 1970.
    """

    _store: Store
    _capacity: Callable[[], Capacity]
    _clock: IReactorTime
    _now: Callable[[], float]
    # By hours; the least recently used comes first.
    _flights: dict[int, SingleFlight[Forecast]] = field(factory=dict, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def forecast(self, hours: int) -> Deferred[Forecast]:
        """Return the forecast of the next hours; fail as the store does.

        It may come from the cache: see ``as_of``.
        """
        flight = self._flights.pop(hours, None)
        if flight is None:
            flight = SingleFlight(
                fetch=partial(self._read, hours),
                ttl=lambda cost: min(MAX_TTL_SECONDS, COST_FACTOR * cost),
                clock=self._clock,
                lock=self._lock,
            )
        self._flights[hours] = flight
        result = flight.get()
        idle = [key for key, cached in self._flights.items() if not cached.in_flight]
        for key in idle[: max(0, len(self._flights) - CACHE_SIZE)]:
            del self._flights[key]
        return result

    async def _read(self, hours: int) -> Forecast:
        now, capacity = self._now(), self._capacity()
        begin = floor_to_minute(now)
        until = begin + hours * 60 * MINUTE
        load = await self._store.read(
            due_load,
            begin,
            until,
            find_saturated=partial(saturated_span, capacity, begin=begin),
            # Minutes with few calls to a host hardly matter, even if the host is overloaded.
            busy_above=capacity.sustainable_per_minute // 4,
        )
        fleet = fleet_load(load.by_minute, load.fleet, begin)
        overloads = find_overloads(capacity, [*fleet, *load.hosts], begin)
        return Forecast(
            as_of=now,
            begin=begin,
            until=until,
            capacity=capacity,
            minutes=load.by_minute,
            overloads=overloads[:MAX_OVERLOADS],
            complete=len(load.hosts) < MAX_LOADS and len(overloads) <= MAX_OVERLOADS,
        )
