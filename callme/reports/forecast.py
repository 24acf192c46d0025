"""What lies ahead: when a task's attempts come, how late calls will be, which come too late.

Calls are foreseen as queues that move at an even pace: one for each host, and one for all.
As many calls as there are places start at once, and each one behind them when one before it
has ended. Only the next call of each task is foreseen, not what its failure would bring.
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
from ..store.interface import MinuteLoad
from ..worker.throughput import Capacity

MAX_OVERLOADS = 1000
"""How many overloaded minutes one forecast tells."""
Span = tuple[int, int]
"""The first and the last of some minutes."""


@frozen
class Overload:
    """A minute whose calls cannot all start before their ``max_delay``.

    :ivar last_start_at: when the last of them would start, seconds since 1970.
    :ivar too_late: how many at most start too late.
    """

    load: MinuteLoad
    last_start_at: float
    too_late: int


@frozen
class Forecast:
    """What is ahead.

    :ivar as_of: when that was looked up, seconds since 1970.
    :ivar begin: the minute that it begins in; what was due before is called in it.
    :ivar until: the minute before which it ends.
    :ivar capacity: how fast calls could be made.
    :ivar minutes: how many calls each minute has, of those that have any, in order.
    :ivar overloaded: the minutes with calls that would start too late, by host and then by time.
    :ivar complete: whether those are all of them.
    """

    as_of: float
    begin: int
    until: int
    capacity: Capacity
    minutes: Mapping[int, int]
    overloads: Sequence[Overload]
    complete: bool


def attempts_at(definition: Definition, now: float, most: int | None = None) -> list[int]:
    """Return the minute of every attempt of a new task if all fail, each in its own minute.

    :param most: how many to return at most.
    """
    return list(islice(_attempts_at(definition, now), most))


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
    """Return how late the last call of a task's minute is to be expected, in seconds.

    It is reckoned as if nothing were left over from the minutes before.

    :param calls: all calls of that minute.
    :param calls_to_host: those that go to the host of the task.
    """
    host = host_of(definition.callback)
    waits = (_wait(capacity, calls, None), _wait(capacity, calls_to_host, host))
    return max(0.0, now - definition.trigger_at) + max(waits)


def _wait(capacity: Capacity, calls: float, host: str | None) -> float:
    """Return how long the last of some calls must wait for its place, in seconds."""
    return max(0.0, calls - capacity.places(host)) / capacity.calls_per_second(host)


def saturated_span(capacity: Capacity, minutes: Mapping[int, int], begin: int) -> Span | None:
    """Return where calls may come too late as there is no room for more, to whatever host.

    That is from the first to the last minute with calls that wait for a minute: no task must
    start sooner after it is due, unless it was due before the forecast began.
    """
    rate = capacity.calls_per_second()
    found = []
    left, before = 0.0, begin
    for minute, calls in minutes.items():
        left = max(0.0, left - rate * (minute - before)) + calls
        before = minute
        wait = _wait(capacity, left, None)
        if wait >= MINUTE or (wait and minute == begin):
            found.append(minute)
    return (found[0], found[-1]) if found else None


def span_above(minutes: Mapping[int, int], more_than: int) -> Span | None:
    """Return the first and the last minute with more than so many calls."""
    # No host has more calls in a minute than all hosts have.
    found = [minute for minute, calls in minutes.items() if calls > more_than]
    return (found[0], found[-1]) if found else None


def fleet_load(
    minutes: Mapping[int, int], loads: Iterable[MinuteLoad], begin: int
) -> list[MinuteLoad]:
    """Return the calls to all hosts, minute by minute.

    :param loads: the minutes of :func:`saturated_span`; no others can be overloaded.
    """
    known = {load.minute: load for load in fold_backlog(loads, begin)}
    return [
        known.get(minute) or MinuteLoad(minute, None, calls, MAX_TIMESTAMP)
        for minute, calls in minutes.items()
    ]


def find_overloads(capacity: Capacity, loads: Iterable[MinuteLoad], begin: int) -> list[Overload]:
    """Return the minutes with calls that would start too late, by host and then by time.

    :param begin: the minute that the forecast begins in; what is due before is called in it.
    """
    queues: defaultdict[str | None, list[MinuteLoad]] = defaultdict(list)
    for load in loads:
        queues[load.host].append(load)
    found: list[Overload] = []
    for host in sorted(queues, key=lambda name: name or ""):
        found += _overloads(capacity, host, fold_backlog(queues[host], begin), begin)
    return found


def fold_backlog(loads: Iterable[MinuteLoad], begin: int) -> Sequence[MinuteLoad]:
    """Return the loads of one host by time, what is due before ``begin`` put into one."""
    minutes: dict[int, MinuteLoad] = {}
    for load in loads:
        minute = max(load.minute, begin)
        calls, expires_at = load.calls, load.expires_at
        if (there := minutes.get(minute)) is not None:
            calls, expires_at = calls + there.calls, min(expires_at, there.expires_at)
        minutes[minute] = MinuteLoad(minute, load.host, calls, expires_at)
    return [minutes[minute] for minute in sorted(minutes)]


def _overloads(
    capacity: Capacity, host: str | None, loads: Iterable[MinuteLoad], begin: int
) -> Iterator[Overload]:
    rate = capacity.calls_per_second(host)
    left, before = 0.0, begin
    for load in loads:
        left = max(0.0, left - rate * (load.minute - before))
        before = load.minute
        last_start_at = load.minute + _wait(capacity, left + load.calls, host)
        too_late = 0
        if last_start_at >= load.expires_at:
            behind = rate * (last_start_at - load.expires_at)
            too_late = min(load.calls, 1 + math.floor(behind))
            yield Overload(load, last_start_at, too_late)
        # What is too late is not called any more.
        left += load.calls - too_late
