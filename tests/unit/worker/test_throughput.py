"""Throughput: measured rates, and the capacity that follows."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from callme.worker.throughput import MAX_MEASURED_HOSTS, MIN_SAMPLES, Capacity, ThroughputMeter
from tests.helpers.forecasts import HOST, OTHER, TEN
from tests.helpers.world import World


def test_capacity_combines_measured_and_assumed_rates() -> None:
    assert TEN.calls_per_second() == 10
    assert (TEN.calls_per_second(HOST), TEN.calls_per_second(OTHER)) == (2, 5)
    assert TEN.is_measured()
    assert (TEN.is_measured(HOST), TEN.is_measured(OTHER)) == (True, False)
    nothing = Capacity(concurrency=256, per_host=64)
    assert (nothing.calls_per_second(), nothing.calls_per_second(HOST)) == (256, 64)
    assert not nothing.is_measured()
    only_durations = Capacity(concurrency=256, per_host=64, duration=0.5, durations={HOST: 0.0})
    assert only_durations.calls_per_second() == 512
    assert only_durations.calls_per_second(HOST) == 512
    assert Capacity(concurrency=4, per_host=64).calls_per_second(HOST) == 4
    # A few calls of 3 ms do not prove that 256 calls at once would be as fast.
    short = Capacity(concurrency=256, per_host=64, duration=0.003, durations={HOST: 0.003})
    assert (short.calls_per_second(), short.calls_per_second(HOST)) == (1000, 1000)
    assert (
        Capacity(concurrency=256, per_host=64, rate=4000.0, duration=0.003).calls_per_second()
        == 4000
    )


def test_throughput_counts_calls_while_slots_are_short() -> None:
    clock = Clock()
    meter = ThroughputMeter(clock.seconds)
    assert meter.capacity(256, 64) == Capacity(concurrency=256, per_host=64)
    for _ in range(MIN_SAMPLES):
        meter.record_call(HOST, 100)
    clock.advance(1000)
    assert meter.capacity(256, 64).rate is None
    assert meter.capacity(256, 64).duration == pytest.approx(0.1)
    meter.set_saturated(True)
    for _ in range(MIN_SAMPLES):
        clock.advance(0.1)
        meter.record_call(HOST, 300)
    assert meter.capacity(256, 64).rate == pytest.approx(10)
    meter.set_saturated(False)
    clock.advance(1000)
    meter.record_call(OTHER, None)
    capacity = meter.capacity(256, 64)
    assert capacity.rate == pytest.approx(10)
    assert list(capacity.durations) == [HOST]
    assert 0.2 < capacity.durations[HOST] <= 0.3


def test_throughput_forgets_old_samples() -> None:
    clock = Clock()
    meter = ThroughputMeter(clock.seconds)
    for rate in (10, 200):
        for _ in range(300):
            meter.set_saturated(True)
            clock.advance(1)
            for _ in range(rate):
                meter.record_call(HOST, None)
    assert meter.capacity(256, 64).rate == pytest.approx(200, rel=0.05)
    meter.record_call(HOST, 1)
    for number in range(MAX_MEASURED_HOSTS):
        meter.record_call(f"host-{number}", 5)
    durations = meter.capacity(256, 64).durations
    assert HOST not in durations
    assert len(durations) == MAX_MEASURED_HOSTS


def test_scheduler_measures_throughput(world: World) -> None:
    world.restart(concurrency=4, per_host=2)
    for number in range(400):
        world.put(f"task-{number}", callback=f"http://host-{number % 4}/")
    assert world.scheduler.capacity() == Capacity(concurrency=4, per_host=2)
    world.caller.status = None
    world.clock.advance(60)
    second = 0
    while world.caller.pending:
        second += 1
        world.clock.advance(0.5)
        for key in list(world.caller.pending):
            world.caller.end(key, 200)
    capacity = world.scheduler.capacity()
    assert capacity.rate == pytest.approx(8, rel=0.1)
    assert set(capacity.durations) == {f"host-{number}:80" for number in range(4)}


def test_slow_host_does_not_lower_total_throughput(world: World) -> None:
    world.restart(concurrency=100, per_host=2)
    world.caller.status = None
    for number in range(300):
        world.put(f"task-{number}")
    world.clock.advance(60)
    while world.caller.pending:
        world.clock.advance(1)
        for key in list(world.caller.pending):
            world.caller.end(key, 200)
    assert len(world.caller.calls) == 300
    assert world.scheduler.capacity().rate is None
