"""The forecaster: shared, cached and bounded forecasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from callme.reports.forecast import (
    CACHE_SIZE,
    COST_FACTOR,
    MAX_OVERLOADS,
    MAX_TTL_SECONDS,
    Forecaster,
)
from callme.store import stats
from callme.store.interface import MAX_LOADS, DueLoad, MinuteLoad, StoreUnavailable
from callme.worker.throughput import Capacity
from tests.helpers.forecasts import forecaster
from tests.helpers.instant_store import InstantStore
from tests.helpers.tasks import NOON
from tests.helpers.world import World


def clock_at(seconds: float) -> Clock:
    clock = Clock()
    clock.rightNow = seconds
    return clock


def test_forecast_is_read_in_one_transaction(world: World) -> None:
    for number in range(100):
        world.put(f"task-{number}", NOON, max_delay=1)
    reads: list[object] = []
    read_once = world.store._read

    def counted(query: Any) -> Deferred[Any]:
        reads.append(query)
        result: Deferred[Any] = read_once(query)
        return result

    world.store._read = counted
    told = World.result(
        forecaster(world.store, Capacity(concurrency=1, per_host=1), world.clock).forecast(1)
    )
    assert len(told.overloads) == 2
    assert len(reads) == 1


class Crowd(InstantStore):
    """A store with many calls to many hosts."""

    hosts = MAX_LOADS

    def __init__(self) -> None:
        super().__init__()
        self.overrides[stats.due_load] = self._due_load

    def _due_load(self, begin: int, until: int, **_: Any) -> Deferred[DueLoad]:
        hosts = [f"h{number}:80" for number in range(self.hosts)]
        return succeed(
            DueLoad(
                by_minute={NOON: 1000 * self.hosts},
                fleet=[],
                hosts=[
                    MinuteLoad(minute=NOON, host=host, calls=1000, expires_at=NOON + 60)
                    for host in hosts
                ],
            )
        )


def test_truncated_forecast_gives_its_end() -> None:
    store = Crowd()
    narrow = Capacity(concurrency=10**7, per_host=10)
    for hosts, complete in ((MAX_OVERLOADS, True), (MAX_OVERLOADS + 1, False), (MAX_LOADS, False)):
        store.hosts = hosts
        told = World.result(forecaster(store, narrow, clock_at(NOON + 1)).forecast(24))
        assert (told.complete, len(told.overloads)) == (complete, MAX_OVERLOADS)
    # Few hosts are overloaded, but more may be beyond the end of the query.
    roomy = Capacity(concurrency=10**7, per_host=1000)
    cut = World.result(forecaster(store, roomy, clock_at(NOON)).forecast(1))
    assert (cut.complete, cut.overloads) == (False, [])
    store.close()


class Slow(InstantStore):
    """A store whose queries end when the test decides.

    :ivar pending: the results of the queries in progress.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Deferred[None]] = []
        self.overrides[stats.due_load] = self._due_load

    def _due_load(self, *args: Any, **options: Any) -> Deferred[DueLoad]:
        self.pending.append(Deferred())
        return self.pending[-1].addCallback(lambda _: self.query(stats.due_load, *args, **options))


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.close()


def slow_forecaster(store: Slow) -> tuple[Forecaster, Clock]:
    clock = clock_at(NOON)
    return forecaster(store, Capacity(concurrency=256, per_host=64), clock), clock


def test_forecast_is_shared_and_cached(slow: Slow) -> None:
    outlook, clock = slow_forecaster(slow)
    first, second = outlook.forecast(24), outlook.forecast(24)
    assert len(slow.pending) == 1
    clock.advance(0.5)
    slow.pending[0].callback(None)
    told = World.result(first)
    assert told.as_of == NOON
    assert World.result(second) is told
    clock.advance(COST_FACTOR * 0.5 - 0.01)
    assert World.result(outlook.forecast(24)) is told
    clock.advance(0.02)
    outlook.forecast(24)
    assert len(slow.pending) == 2


def test_forecasts_are_computed_one_at_a_time(slow: Slow) -> None:
    outlook, _ = slow_forecaster(slow)
    asked = [outlook.forecast(hours) for hours in (1, 2, 1, 3)]
    for number in range(3):
        assert len(slow.pending) == number + 1
        slow.pending[number].callback(None)
    told = [World.result(one) for one in asked]
    assert [(one.until - one.begin) // 3600 for one in told] == [1, 2, 1, 3]


def test_cancelled_caller_does_not_cancel_a_shared_forecast(slow: Slow) -> None:
    outlook, _ = slow_forecaster(slow)
    one, other = outlook.forecast(24), outlook.forecast(24)
    one.addErrback(lambda failure: failure.trap(CancelledError))
    one.cancel()
    outlook.forecast(24)
    assert len(slow.pending) == 1
    slow.pending[0].callback(None)
    assert World.result(other).minutes == {}


def test_failed_forecast_fails_for_every_caller(slow: Slow) -> None:
    outlook, _ = slow_forecaster(slow)
    asked = [outlook.forecast(24), outlook.forecast(24), outlook.forecast(1)]
    slow.pending[0].errback(StoreUnavailable("no"))
    for one in asked[:2]:
        with pytest.raises(StoreUnavailable):
            World.result(one)
    slow.pending[1].callback(None)
    assert World.result(asked[2]).complete


def test_forecast_of_a_slow_read_is_fresh_for_one_minute(slow: Slow) -> None:
    outlook, clock = slow_forecaster(slow)
    outlook.forecast(24)
    clock.advance(100)
    slow.pending[0].callback(None)
    clock.advance(MAX_TTL_SECONDS)
    outlook.forecast(24)
    assert len(slow.pending) == 2


def test_forecast_cache_is_bounded(slow: Slow) -> None:
    outlook, clock = slow_forecaster(slow)
    for hours in range(CACHE_SIZE + 1):
        outlook.forecast(hours)
        clock.advance(1)
        slow.pending[-1].callback(None)
    for hours in range(1, CACHE_SIZE + 1):
        outlook.forecast(hours)
    assert len(slow.pending) == CACHE_SIZE + 1
    outlook.forecast(0)
    assert len(slow.pending) == CACHE_SIZE + 2
