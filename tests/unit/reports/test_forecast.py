"""Forecasts: attempts, lateness and overloaded minutes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.reports.forecast import (
    attempts_at,
    find_overloads,
    fleet_load,
    fold_backlog,
    lateness,
    saturated_span,
)
from callme.store.interface import MinuteLoad
from callme.store.stats import (
    span_above,
)
from callme.worker.throughput import Capacity
from tests.helpers.forecasts import FAR, HOST, OTHER, TEN, minutes, overload
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"retry": 0}, [0]),
        ({"retry": 3}, [0, 1, 2, 3]),
        ({"retry": 4, "retry_delay": [1, 5, 30]}, [0, 1, 6, 36, 66]),
        ({"retry": 1000, "max_delay": 4}, [0, 1, 2, 3]),
        ({"retry": 3, "retry_delay": 10, "max_delay": 10}, [0]),
        ({"retry": 2, "retry_delay": 0}, [0, 0, 0]),
    ],
)
def test_attempts_follow_retry_delay_and_max_delay(
    more: dict[str, Any], expected: list[int]
) -> None:
    made = definition(**more)
    assert attempts_at(made, NOON - 5000) == minutes(*expected)
    assert attempts_at(made, NOON - 5000, 2) == minutes(*expected[:2])


def test_attempts_of_a_due_task_start_now(world: World) -> None:
    assert attempts_at(definition(retry=1), NOON + 150) == minutes(2, 3)


def test_attempts_are_made_as_forecast(world: World) -> None:
    world.caller.status = 500
    world.scheduler.start()
    made = world.put(at=NOON + 60, retry=5, retry_delay=[0, 2, 1], max_delay=5)
    foreseen = attempts_at(made, world.now())
    world.turn_to(NOON + 1200)
    assert [time for time, _ in world.caller.calls] == foreseen
    assert len(foreseen) > 3


@pytest.mark.parametrize(
    ("calls", "to_host", "seconds"),
    [(1, 1, 0), (10, 5, 0), (60, 5, 5), (10, 10, 2.5), (11, 6, 0.5), (1010, 105, 100)],
)
def test_lateness_of_the_last_call_follows_the_rate(
    calls: int, to_host: int, seconds: float
) -> None:
    assert lateness(TEN, definition(), NOON - 100, calls, to_host) == seconds
    assert lateness(TEN, definition(), NOON + 7, calls, to_host) == seconds + 7


def test_minute_is_overloaded_if_its_last_call_is_late() -> None:
    def load(calls: int) -> MinuteLoad:
        return MinuteLoad(minute=NOON, host=HOST, calls=calls, expires_at=NOON + 60)

    # Five start at once, and two a second follow.
    assert find_overloads(TEN, [load(124)], NOON) == []
    assert find_overloads(TEN, [load(125)], NOON) == [overload(load(125), NOON + 60, 1)]
    assert find_overloads(TEN, [load(225)], NOON) == [overload(load(225), NOON + 110, 101)]


def test_backlog_delays_the_next_minutes() -> None:
    first, second, third = (
        MinuteLoad(minute=at, host=HOST, calls=calls, expires_at=at + most)
        for at, calls, most in (
            (NOON, 245, 600),
            (NOON + 60, 5, 60),
            (NOON + 300, 5, 60),
        )
    )
    assert find_overloads(TEN, [first, second, third], NOON) == [overload(second, NOON + 122.5, 5)]
    assert find_overloads(TEN, [second, third], NOON) == []


def test_expired_calls_leave_the_backlog() -> None:
    first, second = (
        MinuteLoad(minute=NOON, host=HOST, calls=1000, expires_at=NOON + 60),
        MinuteLoad(minute=NOON + 60, host=HOST, calls=1, expires_at=NOON + 120),
    )
    assert find_overloads(TEN, [first, second], NOON) == [overload(first, NOON + 497.5, 876)]


def test_backlog_is_carried_over_in_total_and_per_host() -> None:
    every = MinuteLoad(minute=NOON, host=None, calls=10_000, expires_at=NOON + 600)
    loads = [
        MinuteLoad(minute=NOON, host=OTHER, calls=9_000, expires_at=NOON + 600),
        MinuteLoad(minute=NOON, host=HOST, calls=9, expires_at=NOON + 600),
        every,
    ]
    found = find_overloads(TEN, loads, NOON)
    assert [(one.load.host, one.last_start_at - NOON) for one in found] == [
        (None, 999),
        (OTHER, 1799),
    ]


def test_due_tasks_count_in_the_first_minute() -> None:
    loads = [
        MinuteLoad(minute=NOON - 120, host=HOST, calls=3, expires_at=FAR),
        MinuteLoad(minute=NOON, host=HOST, calls=4, expires_at=NOON + 60),
        MinuteLoad(minute=NOON + 60, host=HOST, calls=1, expires_at=FAR),
    ]
    assert fold_backlog(loads, NOON) == [
        MinuteLoad(minute=NOON, host=HOST, calls=7, expires_at=NOON + 60),
        MinuteLoad(minute=NOON + 60, host=HOST, calls=1, expires_at=FAR),
    ]


@given(
    st.builds(
        Capacity,
        concurrency=st.integers(1, 300),
        per_host=st.integers(1, 300),
        rate=st.none() | st.floats(0.1, 1e4),
        duration=st.none() | st.floats(0, 1800),
        durations=st.dictionaries(st.just(HOST), st.floats(0, 1800)),
    ),
    st.integers(1, 20),
)
def test_host_with_sustainable_load_is_never_overloaded(capacity: Capacity, count: int) -> None:
    calls = capacity.sustainable_per_minute
    if calls > 60 * capacity.calls_per_second(HOST):
        return  # Less than one call a minute, which is the minimum reported.
    loads = [
        MinuteLoad(minute=at, host=HOST, calls=calls, expires_at=at + 60)
        for at in minutes(*range(count))
    ]
    assert find_overloads(capacity, loads, NOON) == []


def test_saturated_span_covers_overloaded_minutes() -> None:
    # Ten start at once, and ten a second follow.
    calls = dict(zip(minutes(0, 1, 2, 3, 9), (609, 610, 600, 1, 1000), strict=True))
    assert saturated_span(TEN, calls, NOON - 60) == (NOON + 60, NOON + 540)
    assert saturated_span(TEN, {NOON: 609}, NOON - 60) is None
    # Tasks that were due before may have little time left.
    assert saturated_span(TEN, {NOON: 11}, NOON) == (NOON, NOON)
    assert saturated_span(TEN, {NOON: 10}, NOON) is None
    assert span_above(calls, 609) == (NOON + 60, NOON + 540)
    assert span_above(calls, 1000) is None
    assert saturated_span(TEN, {}, NOON) is span_above({}, 0) is None


@given(
    st.dictionaries(
        st.integers(0, 12).map(lambda number: NOON + 60 * number),
        st.tuples(st.integers(1, 1500), st.integers(1, 4)),
        max_size=8,
    )
)
def test_overloads_lie_within_the_saturated_span(drawn: dict[int, tuple[int, int]]) -> None:
    loads = [
        MinuteLoad(minute=at, host=None, calls=calls, expires_at=at + 60 * most)
        for at, (calls, most) in sorted(drawn.items())
    ]
    calls_ahead = {load.minute: load.calls for load in loads}
    first, last = saturated_span(TEN, calls_ahead, NOON) or (0, -1)
    seen = [load for load in loads if first <= load.minute <= last]
    assert find_overloads(TEN, fleet_load(calls_ahead, seen, NOON), NOON) == find_overloads(
        TEN, loads, NOON
    )
