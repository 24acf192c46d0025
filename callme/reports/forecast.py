"""Forecasts of calls, read once for all clients: attempts of a task, lateness and overloads.

The model has a queue with a constant rate for each host, and one for all hosts. As many calls as
there are slots start at once; each further call starts when an earlier one ends. Only the next
call of each task is in the forecast, not the retries that its failure would cause.
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
"""Overloads in one forecast."""
COST_FACTOR = 20
"""How many times as long as its read took a forecast stays fresh."""
MAX_TTL_SECONDS = 60.0
"""The longest time for which a forecast stays fresh."""
CACHE_SIZE = 4
"""Forecasts in the cache, each of another number of hours."""


@frozen(kw_only=True)
class Overload:
    """A minute whose calls cannot all start before their ``max_delay``.

    :ivar last_start_at: when the last of them would start, seconds since 1970.
    :ivar too_late: the largest number of them that may start too late.
    """

    load: MinuteLoad
    last_start_at: float
    too_late: int


@frozen(kw_only=True)
class Forecast:
    """The calls of the next hours.

    :ivar as_of: when it was read, seconds since 1970.
    :ivar begin: its first minute, seconds since 1970; earlier due tasks are called in it.
    :ivar until: its end, seconds since 1970, exclusive.
    :ivar capacity: how fast calls could be made.
    :ivar minutes: the number of calls of each minute that has any, in order.
    :ivar overloads: the minutes with calls that would start too late, by host, then by time.
    :ivar complete: whether ``overloads`` has all of them.
    """

    as_of: float
    begin: int
    until: int
    capacity: Capacity
    minutes: Mapping[int, int]
    overloads: Sequence[Overload]
    complete: bool


def attempts_at(definition: Definition, now: float, limit: int | None = None) -> list[int]:
    """Return the due time of every attempt of a new task, should each fail in its own minute.

    The times are seconds since 1970.

    :param limit: the largest number of times to return.
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

    The estimate ignores calls left over from earlier minutes.

    :param calls: all calls of that minute.
    :param calls_to_host: those to the task's host.
    """
    host = host_of(definition.callback)
    waits = (_wait(capacity, calls, None), _wait(capacity, calls_to_host, host))
    return max(0.0, now - definition.trigger_at) + max(waits)


def _wait(capacity: Capacity, calls: float, host: str | None) -> float:
    """Return how long the last of several calls waits for its slot, in seconds."""
    return max(0.0, calls - capacity.slots(host)) / capacity.calls_per_second(host)


def saturated_span(
    capacity: Capacity, calls_by_minute: Mapping[int, int], begin: int
) -> MinuteSpan | None:
    """Return the first and the last minute whose calls may start too late for lack of slots.

    These are minutes with calls that wait for a minute or longer, which is the shortest
    ``max_delay``. In the first minute of the forecast every wait counts, as the tasks that were
    due before it may have less time left.

    :param begin: the first minute of the forecast, seconds since 1970.
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

    :param saturated: the loads in :func:`saturated_span`. In other minutes no call can be too
        late, so the deadlines of those calls do not matter.
    """
    known = {max(load.minute, begin) for load in saturated}
    rest = [
        MinuteLoad(minute=minute, host=None, calls=calls, expires_at=MAX_TIMESTAMP)
        for minute, calls in calls_by_minute.items()
        if minute not in known
    ]
    return [*saturated, *rest]


def find_overloads(capacity: Capacity, loads: Iterable[MinuteLoad], begin: int) -> list[Overload]:
    """Return the minutes with calls that would start too late, by host, then by time.

    :param begin: the first minute of the forecast, seconds since 1970; earlier due tasks are
        called in it.
    """
    queues: defaultdict[str | None, list[MinuteLoad]] = defaultdict(list)
    for load in loads:
        queues[load.host].append(load)
    found: list[Overload] = []
    for host in sorted(queues, key=lambda name: name or ""):
        found += _overloads(capacity, host, fold_backlog(queues[host], begin), begin)
    return found


def fold_backlog(loads: Iterable[MinuteLoad], begin: int) -> Sequence[MinuteLoad]:
    """Return the loads of one host by time, with all due before ``begin`` merged into it."""
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
        # A call that is too late is never made.
        queued += load.calls - too_late


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
