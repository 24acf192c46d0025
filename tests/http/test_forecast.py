"""The forecast of the API: calls by minute, and overloaded minutes."""

from __future__ import annotations

from callme.store.interface import (
    MinuteLoad,
)
from callme.worker.throughput import Capacity
from tests.helpers.api_client import ask
from tests.helpers.forecasts import HOST, forecaster, overload
from tests.helpers.tasks import NOON
from tests.helpers.world import World


def test_forecast_of_an_empty_store_is_empty(world: World) -> None:
    assert ask(world, "GET", "/forecast").json == {
        "as_of": "2027-01-15T12:00:00.000Z",
        "from": "2027-01-15T12:00:00.000Z",
        "until": "2027-01-16T12:00:00.000Z",
        "calls": 0,
        "rate": {"calls_per_second": 256.0, "measured": False},
        "minutes": [],
        "overloaded": [],
        "complete": True,
    }


def test_forecast_counts_calls_by_minute(world: World) -> None:
    world.put("late", NOON - 120)
    world.put("now", NOON)
    world.put("soon", NOON + 3540)
    world.put("far", NOON + 3600)
    told = ask(world, "GET", "/forecast?hours=1").json
    assert (told["calls"], told["until"]) == (3, "2027-01-15T13:00:00.000Z")
    assert told["minutes"] == [
        {"minute": "2027-01-15T12:00:00.000Z", "calls": 2},
        {"minute": "2027-01-15T12:59:00.000Z", "calls": 1},
    ]


def test_forecast_counts_notifications(world: World) -> None:
    world.put(retry=0, on_failure="http://told.example/")
    world.caller.status = 500
    world.scheduler.start()
    world.turn_to(NOON + 1)
    # The first attempt was made at once and failed: this is the second one.
    told = ask(world, "GET", "/forecast").json
    assert told["minutes"] == [{"minute": "2027-01-15T12:01:00.000Z", "calls": 1}]


def test_forecast_lists_overloaded_minutes_by_host(world: World) -> None:
    world.restart(concurrency=2, per_host=1)
    for number in range(70):
        world.put(f"a{number}", NOON + 600, max_delay=1)
        world.put(f"b{number}", NOON + 660, max_delay=10, callback="http://other.example/")
    told = ask(world, "GET", "/forecast").json
    assert told["overloaded"] == [
        {
            "host": HOST,
            "rate": {"calls_per_second": 1.0, "measured": False},
            "minutes": [
                {
                    "minute": "2027-01-15T12:10:00.000Z",
                    "calls": 70,
                    "lateness_ms": 69000,
                    "too_late": 10,
                }
            ],
        }
    ]
    assert told["complete"]


def test_forecast_counts_due_tasks_in_the_first_minute(world: World) -> None:
    for number in range(100):
        world.put(f"task-{number}", NOON - 60 * (number % 2), max_delay=1 + number % 2)
    told = World.result(
        forecaster(world.store, Capacity(concurrency=1, per_host=1), world.clock).forecast(1)
    )
    assert told.minutes == {NOON: 100}
    of_fleet, of_host = told.overloads
    assert of_fleet == overload(
        MinuteLoad(minute=NOON, host=None, calls=100, expires_at=NOON + 60), NOON + 99, 40
    )
    assert of_host == overload(
        MinuteLoad(minute=NOON, host=HOST, calls=100, expires_at=NOON + 60), NOON + 99, 40
    )
