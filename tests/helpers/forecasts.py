"""The capacity and the minutes that tests of forecasts share."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from callme.reports.forecast import Forecaster, Overload
from callme.store.interface import MinuteLoad
from callme.worker.throughput import Capacity
from tests.helpers.tasks import NOON

HOST = "sink.example:80"
OTHER = "other.example:443"
TEN = Capacity(concurrency=10, per_host=5, rate=10.0, duration=1.0, durations={HOST: 2.5})
"""Ten calls a second in all, two to the host, five to any other."""
FAR = NOON + 10**6


def overload(load: MinuteLoad, last_start_at: float, too_late: int) -> Overload:
    return Overload(load=load, last_start_at=last_start_at, too_late=too_late)


def minutes(*numbers: int, begin: int = NOON) -> list[int]:
    return [begin + 60 * number for number in numbers]


def forecaster(store: Any, capacity: Capacity, clock: Clock) -> Forecaster:
    return Forecaster(store=store, capacity=lambda: capacity, clock=clock, now=clock.seconds)
