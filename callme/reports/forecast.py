"""Forecast of calls: the minutes of a task's attempts, expected lateness and overloads.

The model has a queue with a constant rate for each host, and one for all hosts. As many calls as
there are slots start at once; each further call starts when an earlier one ends. Only the next
call of each task is in the forecast, not the retries that its failure would cause.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from attrs import frozen

from ..core import transitions
from ..core.callback_url import host_of
from ..core.task import Claim, Definition, Outcome, Reason, State
from ..core.times import MAX_TIMESTAMP, MINUTE, floor_to_minute
from ..store.interface import MinuteLoad, MinuteSpan
from ..worker.throughput import Capacity

MAX_OVERLOADS = 1000
"""Overloads in one forecast."""


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
