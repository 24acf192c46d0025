"""Forecasts of calls, cached for all clients: attempts of a task, lateness and overloads.

The model has a queue with a constant rate for each host, and one for all hosts. As many calls as
there are slots start at once; each further call starts when an earlier call ends. The forecast
includes only the next call of each task, not retries after a failure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from ..core import transitions
from ..core.callback_url import host_of
from ..core.task import Claim, Definition, Outcome, Reason, State
from ..core.times import MAX_TIMESTAMP, MINUTE, floor_to_minute
from ..store.database import Store
from ..store.interface import MAX_LOADS, MinuteLoad, MinuteSpan
from ..store.stats import due_load
from ..worker.throughput import Capacity
from .single_flight import SingleFlight

MAX_OVERLOADS = 1000
"""Maximum number of overloads in a forecast."""
COST_FACTOR = 20
"""Multiple of its read's duration for which a forecast stays fresh."""
MAX_TTL_SECONDS = 60.0
"""Maximum time in seconds for which a forecast stays fresh."""
CACHE_SIZE = 4
"""Maximum number of cached forecasts, each for a different number of hours."""


@frozen(kw_only=True)
class Overload:
    """Minute whose calls cannot all start within their ``max_delay``.

    :ivar last_start_at: the expected start of the last call: seconds since 1970.
    :ivar too_late: the maximum number of calls that start too late.
    """

    load: MinuteLoad
    last_start_at: float
    too_late: int


@frozen(kw_only=True)
class Forecast:
    """Calls of the next hours.

    :ivar as_of: the time of the query: seconds since 1970.
    :ivar begin: the first minute: seconds since 1970; tasks due earlier are counted in it.
    :ivar until: the exclusive end: seconds since 1970.
    :ivar capacity: the throughput of calls.
    :ivar minutes: the number of calls by minute, in order, without empty minutes.
    :ivar overloads: the minutes with calls that start too late, by host, then by time.
    :ivar complete: whether ``overloads`` contains all overloads.
    """

    as_of: float
    begin: int
    until: int
    capacity: Capacity
    minutes: Mapping[int, int]
    overloads: Sequence[Overload]
    complete: bool


def attempts_at(definition: Definition, now: float, limit: int | None = None) -> list[int]:
    """Return the due times of a new task's attempts if each fails within its minute.

    :param now: seconds since 1970, as are the returned times.
    :param limit: the maximum number of times to return.
    """
    return list(islice(_attempts_at(definition, now), limit))


def _attempts_at(definition: Definition, now: float) -> Iterator[int]:
    host = host_of(definition.callback)
    at = max(definition.trigger_at, floor_to_minute(now))
    number = 0
    while True:
        yield at
        number += 1
        claim = Claim(
            task_id=0,
            number=number,
            definition=definition,
            attempts_used=number,
            claimed_at_ms=at * 1000,
            host=host,
        )
        outcome = Outcome(started_at_ms=at * 1000, reason=Reason.CONNECTION_FAILED, detail="-")
        transition = transitions.decide_after_attempt(claim, outcome, at)
        if transition.state is not State.SCHEDULED or transition.due_at is None:
            return
        at = transition.due_at


def lateness(
    capacity: Capacity, definition: Definition, now: float, calls: int, calls_to_host: int
) -> float:
    """Return the expected lateness of the last call in a task's minute, in seconds.

    The estimate ignores a backlog from earlier minutes.

    :param calls: the number of all calls in the minute.
    :param calls_to_host: the number of calls to the task's host in the minute.
    """
    host = host_of(definition.callback)
    waits = (_wait(capacity, calls, None), _wait(capacity, calls_to_host, host))
    return max(0.0, now - definition.trigger_at) + max(waits)


def _wait(capacity: Capacity, calls: float, host: str | None) -> float:
    """Return the time that the last of several calls waits for a slot, in seconds."""
    return max(0.0, calls - capacity.slots(host)) / capacity.calls_per_second(host)


def saturated_span(
    capacity: Capacity, calls_by_minute: Mapping[int, int], begin: int
) -> MinuteSpan | None:
    """Return the first and the last minute whose calls may start too late for lack of slots.

    Calls may be too late if they wait for a minute, the minimum of ``max_delay``, or longer. In the
    first minute of the forecast, any wait may be too long, because tasks that were due earlier
    have less time left.

    :param begin: the first minute of the forecast: seconds since 1970.
    """
    rate = capacity.calls_per_second()
    found = []
    queued, previous = 0.0, begin
    for minute, calls in calls_by_minute.items():
        queued = max(0.0, queued - rate * (minute - previous)) + calls
        previous = minute
        wait = _wait(capacity, queued, None)
        if wait >= MINUTE or (wait and minute == begin):
            found.append(minute)
    return (found[0], found[-1]) if found else None


def fleet_load(
    calls_by_minute: Mapping[int, int], saturated: Sequence[MinuteLoad], begin: int
) -> list[MinuteLoad]:
    """Return the calls to all hosts.

    :param saturated: the loads in :func:`saturated_span`. In other minutes, no call can be too
        late, so that the deadlines of calls are irrelevant.
    """
    known = {max(load.minute, begin) for load in saturated}
    rest = [
        MinuteLoad(minute=minute, host=None, calls=calls, expires_at=MAX_TIMESTAMP)
        for minute, calls in calls_by_minute.items()
        if minute not in known
    ]
    return [*saturated, *rest]


def find_overloads(capacity: Capacity, loads: Iterable[MinuteLoad], begin: int) -> list[Overload]:
    """Return the minutes with calls that start too late, by host, then by time.

    :param begin: the first minute of the forecast: seconds since 1970; tasks due earlier are
        counted in it.
    """
    queues: defaultdict[str | None, list[MinuteLoad]] = defaultdict(list)
    for load in loads:
        queues[load.host].append(load)
    found: list[Overload] = []
    for host in sorted(queues, key=lambda name: name or ""):
        found += _overloads(capacity, host, fold_backlog(queues[host], begin), begin)
    return found


def fold_backlog(loads: Iterable[MinuteLoad], begin: int) -> Sequence[MinuteLoad]:
    """Return the loads of one host by time, with earlier loads merged into the minute ``begin``."""
    minutes: dict[int, MinuteLoad] = {}
    for load in loads:
        minute = max(load.minute, begin)
        calls, expires_at = load.calls, load.expires_at
        if (merged := minutes.get(minute)) is not None:
            calls, expires_at = calls + merged.calls, min(expires_at, merged.expires_at)
        minutes[minute] = MinuteLoad(
            minute=minute, host=load.host, calls=calls, expires_at=expires_at
        )
    return [minutes[minute] for minute in sorted(minutes)]


def _overloads(
    capacity: Capacity, host: str | None, loads: Iterable[MinuteLoad], begin: int
) -> Iterator[Overload]:
    rate = capacity.calls_per_second(host)
    queued, previous = 0.0, begin
    for load in loads:
        queued = max(0.0, queued - rate * (load.minute - previous))
        previous = load.minute
        last_start_at = load.minute + _wait(capacity, queued + load.calls, host)
        too_late = 0
        if last_start_at >= load.expires_at:
            behind = rate * (last_start_at - load.expires_at)
            too_late = min(load.calls, 1 + math.floor(behind))
            yield Overload(load=load, last_start_at=last_start_at, too_late=too_late)
        # Calls that are too late are never made, so they do not delay later calls.
        queued += load.calls - too_late


@define(eq=False, kw_only=True)
class Forecaster:
    """Source of cached forecasts of scheduled calls.

    Counting a million tasks takes the database from 60 ms to a second. To bound the load of many
    clients, one read runs at a time, and reads for the same number of hours take at most a
    twentieth of the time.

    :param capacity: returns the throughput of calls.
    :param clock: the monotonic clock.
    :param now: returns the wall-clock time: seconds since 1970.
    """

    _store: Store
    _capacity: Callable[[], Capacity]
    _clock: IReactorTime
    _now: Callable[[], float]
    # Lookups by number of hours, the least recently used first.
    _flights: dict[int, SingleFlight[Forecast]] = field(factory=dict, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def forecast(self, hours: int) -> Deferred[Forecast]:
        """Return the forecast of the next hours, which may be cached: see ``as_of``.

        The Deferred fails if the store does.
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
            # Minutes with few calls to a host hardly affect the result, even if it is overloaded.
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
