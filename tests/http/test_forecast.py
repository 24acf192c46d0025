"""Forecasts: attempts, lateness, overloaded minutes, and dry runs of puts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from callme.core.task import State
from callme.core.times import rfc3339
from callme.reports.forecast import (
    MAX_OVERLOADS,
    Overload,
    attempts_at,
    find_overloads,
    fleet_load,
    fold_backlog,
    lateness,
    saturated_span,
)
from callme.reports.forecaster import (
    CACHE_SIZE,
    COST_FACTOR,
    MAX_TTL_SECONDS,
    Forecaster,
)
from callme.store import stats, tasks
from callme.store.database import Store
from callme.store.interface import (
    MAX_LOADS,
    DueLoad,
    MinuteLoad,
    PutPreview,
    StoreUnavailable,
)
from callme.store.stats import (
    due_counts_by_minute,
    load_by_minute,
    load_by_minute_and_host,
    span_above,
)
from callme.worker.throughput import MAX_HOSTS, MIN_SAMPLES, Capacity, ThroughputMeter
from tests.helpers.api_client import AT, BODY, ask
from tests.helpers.stores import NOW, put, put_in
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import InstantStore, World

HOST = "sink.example:80"
OTHER = "other.example:443"
TEN = Capacity(10, 5, rate=10.0, duration=1.0, durations={HOST: 2.5})
"""Ten calls a second in all, two to the host, five to any other."""
FAR = NOON + 10**6


def overload(load: MinuteLoad, last_start_at: float, too_late: int) -> Overload:
    return Overload(load=load, last_start_at=last_start_at, too_late=too_late)


async def read(store: Any, query: Any, *arguments: Any) -> Any:
    """Run a query of the store package in a transaction of its own."""
    return await store._read(lambda cursor: query(cursor, *arguments))


def minutes(*numbers: int, begin: int = NOON) -> list[int]:
    return [begin + 60 * number for number in numbers]


# Attempts


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
    world.caller.answer = 500
    world.scheduler.start()
    made = world.put(at=NOON + 60, retry=5, retry_delay=[0, 2, 1], max_delay=5)
    foreseen = attempts_at(made, world.now())
    world.turn_to(NOON + 1200)
    assert [time for time, _ in world.caller.calls] == foreseen
    assert len(foreseen) > 3


# Rates


def test_capacity_combines_measured_and_assumed_rates() -> None:
    assert TEN.calls_per_second() == 10
    assert (TEN.calls_per_second(HOST), TEN.calls_per_second(OTHER)) == (2, 5)
    assert TEN.is_measured()
    assert (TEN.is_measured(HOST), TEN.is_measured(OTHER)) == (True, False)
    nothing = Capacity(256, 64)
    assert (nothing.calls_per_second(), nothing.calls_per_second(HOST)) == (256, 64)
    assert not nothing.is_measured()
    only_durations = Capacity(256, 64, duration=0.5, durations={HOST: 0.0})
    assert only_durations.calls_per_second() == 512
    assert only_durations.calls_per_second(HOST) == 512
    assert Capacity(4, 64).calls_per_second(HOST) == 4
    # A few calls of 3 ms do not prove that 256 calls at once would be as fast.
    short = Capacity(256, 64, duration=0.003, durations={HOST: 0.003})
    assert (short.calls_per_second(), short.calls_per_second(HOST)) == (1000, 1000)
    assert Capacity(256, 64, rate=4000.0, duration=0.003).calls_per_second() == 4000


def test_throughput_counts_calls_while_slots_are_short() -> None:
    clock = Clock()
    pace = ThroughputMeter(clock.seconds)
    assert pace.capacity(256, 64) == Capacity(256, 64)
    for _ in range(MIN_SAMPLES):
        pace.ended(HOST, 100)
    clock.advance(1000)
    assert pace.capacity(256, 64).rate is None
    assert pace.capacity(256, 64).duration == pytest.approx(0.1)
    pace.room(short=True)
    for _ in range(MIN_SAMPLES):
        clock.advance(0.1)
        pace.ended(HOST, 300)
    assert pace.capacity(256, 64).rate == pytest.approx(10)
    pace.room(short=False)
    clock.advance(1000)
    pace.ended(OTHER, None)
    capacity = pace.capacity(256, 64)
    assert capacity.rate == pytest.approx(10)
    assert list(capacity.durations) == [HOST]
    assert 0.2 < capacity.durations[HOST] <= 0.3


def test_throughput_forgets_old_samples() -> None:
    clock = Clock()
    pace = ThroughputMeter(clock.seconds)
    for rate in (10, 200):
        for _ in range(300):
            pace.room(short=True)
            clock.advance(1)
            for _ in range(rate):
                pace.ended(HOST, None)
    assert pace.capacity(256, 64).rate == pytest.approx(200, rel=0.05)
    pace.ended(HOST, 1)
    for number in range(MAX_HOSTS):
        pace.ended(f"host-{number}", 5)
    durations = pace.capacity(256, 64).durations
    assert HOST not in durations
    assert len(durations) == MAX_HOSTS


def test_scheduler_measures_throughput(world: World) -> None:
    world.restart(concurrency=4, per_host=2)
    for number in range(400):
        world.put(f"task-{number}", callback=f"http://host-{number % 4}/")
    assert world.scheduler.capacity() == Capacity(4, 2)
    world.caller.answer = None
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
    world.caller.answer = None
    for number in range(300):
        world.put(f"task-{number}")
    world.clock.advance(60)
    while world.caller.pending:
        world.clock.advance(1)
        for key in list(world.caller.pending):
            world.caller.end(key, 200)
    assert len(world.caller.calls) == 300
    assert world.scheduler.capacity().rate is None


# Lateness


@pytest.mark.parametrize(
    ("calls", "to_host", "seconds"),
    [(1, 1, 0), (10, 5, 0), (60, 5, 5), (10, 10, 2.5), (11, 6, 0.5), (1010, 105, 100)],
)
def test_lateness_of_the_last_call_follows_the_rate(
    calls: int, to_host: int, seconds: float
) -> None:
    assert lateness(TEN, definition(), NOON - 100, calls, to_host) == seconds
    assert lateness(TEN, definition(), NOON + 7, calls, to_host) == seconds + 7


# Overloaded minutes


def test_minute_is_overloaded_if_its_last_call_is_late() -> None:
    def load(calls: int) -> MinuteLoad:
        return MinuteLoad(NOON, HOST, calls, NOON + 60)

    # Five start at once, and two a second follow.
    assert find_overloads(TEN, [load(124)], NOON) == []
    assert find_overloads(TEN, [load(125)], NOON) == [overload(load(125), NOON + 60, 1)]
    assert find_overloads(TEN, [load(225)], NOON) == [overload(load(225), NOON + 110, 101)]


def test_backlog_delays_the_next_minutes() -> None:
    first, second, third = (
        MinuteLoad(at, HOST, calls, at + most)
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
        MinuteLoad(NOON, HOST, 1000, NOON + 60),
        MinuteLoad(NOON + 60, HOST, 1, NOON + 120),
    )
    assert find_overloads(TEN, [first, second], NOON) == [overload(first, NOON + 497.5, 876)]


def test_backlog_is_kept_in_total_and_per_host() -> None:
    every = MinuteLoad(NOON, None, 10_000, NOON + 600)
    loads = [
        MinuteLoad(NOON, OTHER, 9_000, NOON + 600),
        MinuteLoad(NOON, HOST, 9, NOON + 600),
        every,
    ]
    found = find_overloads(TEN, loads, NOON)
    assert [(one.load.host, one.last_start_at - NOON) for one in found] == [
        (None, 999),
        (OTHER, 1799),
    ]


def test_due_tasks_count_in_the_first_minute() -> None:
    loads = [
        MinuteLoad(NOON - 120, HOST, 3, FAR),
        MinuteLoad(NOON, HOST, 4, NOON + 60),
        MinuteLoad(NOON + 60, HOST, 1, FAR),
    ]
    assert fold_backlog(loads, NOON) == [
        MinuteLoad(NOON, HOST, 7, NOON + 60),
        MinuteLoad(NOON + 60, HOST, 1, FAR),
    ]


@given(
    st.builds(
        Capacity,
        st.integers(1, 300),
        st.integers(1, 300),
        st.none() | st.floats(0.1, 1e4),
        st.none() | st.floats(0, 1800),
        st.dictionaries(st.just(HOST), st.floats(0, 1800)),
    ),
    st.integers(1, 20),
)
def test_host_with_sustainable_load_is_never_overloaded(capacity: Capacity, count: int) -> None:
    calls = capacity.sustainable_per_minute
    if calls > 60 * capacity.calls_per_second(HOST):
        return  # Less than one call a minute, which is the minimum reported.
    loads = [MinuteLoad(at, HOST, calls, at + 60) for at in minutes(*range(count))]
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
        MinuteLoad(at, None, calls, at + 60 * most) for at, (calls, most) in sorted(drawn.items())
    ]
    calls_ahead = {load.minute: load.calls for load in loads}
    first, last = saturated_span(TEN, calls_ahead, NOON) or (0, -1)
    seen = [load for load in loads if first <= load.minute <= last]
    assert find_overloads(TEN, fleet_load(calls_ahead, seen, NOON), NOON) == find_overloads(
        TEN, loads, NOON
    )


# Store


async def test_preview_counts_calls_beside_the_task(store: Store) -> None:
    at = NOON + 60
    await put(store, "a", at)
    await put(store, "b", at, callback="http://other.example/")
    await put(store, "c", at + 60)
    await put_in(store, State.FAILED, "d", NOON)
    await put(store, "e", NOON)
    asked = [
        definition("new", at),
        definition("a", at, payload="other"),
        definition("b", at),
        definition("new", NOON - 60),
        definition("e", NOON),
        definition("d", NOON),
    ]
    found = await store.read(stats.preview_put, asked, NOW)
    counts = [(beside.calls, beside.calls_to_host) for beside in found]
    assert counts == [(2, 1), (1, 0), (1, 1), (1, 1), (0, 0), (1, 1)]
    standing = [beside.existing for beside in found]
    assert standing == [await store.read(tasks.get, one.key) for one in asked]
    assert [one is None for one in standing] == [True, False, False, True, False, False]
    assert await store.read(stats.preview_put, [], NOW) == []
    assert found[0] == PutPreview(None, 2, 1)


async def test_calls_ahead_are_counted(store: Store) -> None:
    assert await read(store, due_counts_by_minute, NOON, FAR) == {}
    await put_in(store, State.SUCCEEDED, "y", NOON)
    for number, at in enumerate(minutes(-9, -9, -8, 1, 1, 4, 6)):
        await put(store, f"x{number}", at)
    for begin, until, expected in (
        (NOON, NOON + 360, {NOON: 3, NOON + 60: 2, NOON + 240: 1}),
        (NOON + 60, NOON + 61, {NOON + 60: 5}),
        (NOON - 540, NOON - 480, {NOON - 540: 2}),
        (NOON - 600, NOON - 540, {}),
    ):
        assert await read(store, due_counts_by_minute, begin, until) == expected
    in_order = await read(store, due_counts_by_minute, NOON, FAR)
    assert list(in_order) == minutes(0, 1, 4, 6)


async def test_loads_are_counted_by_minute_and_host(store: Store) -> None:
    assert await read(store, load_by_minute, 0, FAR) == []
    assert await read(store, load_by_minute_and_host, 0, FAR, 0) == []
    for number, host in enumerate(["a", "a", "a", "b"]):
        await put(store, f"x{number}", NOON, callback=f"http://{host}/", max_delay=5 + number)
    await put(store, "y", NOON + 60, callback="http://a/")
    await put_in(store, State.SUCCEEDED, "z", NOON - 60)
    late = NOON + 60 + 60 * 525_600
    assert await read(store, load_by_minute, 0, NOON + 60) == [
        MinuteLoad(NOON, None, 4, NOON + 300),
        MinuteLoad(NOON + 60, None, 1, late),
    ]
    of_hosts = [
        MinuteLoad(NOON, "a:80", 3, NOON + 300),
        MinuteLoad(NOON, "b:80", 1, NOON + 480),
        MinuteLoad(NOON + 60, "a:80", 1, late),
    ]
    for first, last, more_than, expected in (
        (NOON, NOON + 60, 0, of_hosts),
        (NOON, NOON + 60, 1, of_hosts[:1]),
        (NOON + 1, NOON + 60, 0, of_hosts[2:]),
    ):
        assert await read(store, load_by_minute_and_host, first, last, more_than) == expected
    assert await read(store, load_by_minute, NOON + 1, NOON + 59) == []


async def test_due_load_extends_spans_from_the_first_minute_to_the_backlog(store: Store) -> None:
    for number, at in enumerate(minutes(-9, 0, 1, 1, 2)):
        await put(store, f"x{number}", at, callback="http://a/", max_delay=60)

    async def due_load(first: int, last: int) -> DueLoad:
        return await store.read(
            stats.due_load, NOON, NOON + 180, find_saturated=lambda _: (first, last), busy_above=1
        )

    load = await due_load(NOON, NOON + 60)
    assert load.by_minute == dict(zip(minutes(0, 1, 2), (2, 2, 1), strict=True))
    assert [(one.minute, one.calls) for one in load.fleet] == [
        (NOON - 540, 1),
        (NOON, 1),
        (NOON + 60, 2),
    ]
    assert load.hosts == [MinuteLoad(NOON + 60, "a:80", 2, NOON + 3660)]
    assert [one.minute for one in (await due_load(NOON + 60, NOON + 60)).fleet] == [NOON + 60]


# Dry runs


def test_dry_run_reports_what_a_put_would_do(world: World) -> None:
    world.put("beside", AT)
    world.put("elsewhere", AT, callback="http://other.example/")
    body = {**BODY, "retry": 2, "payload": "p", "on_failure": "http://told.example/"}
    answer = ask(world, "PUT", "/task/task?dry_run", body)
    assert (answer.status, answer.header("location")) == (200, None)
    members = answer.json
    true = ask(world, "PUT", "/task/task", body)
    assert (members["task"], members["status"]) == (true.json, true.status)
    assert members["task"]["on_failure"] == "http://told.example/"
    assert members["would"] == "create"
    assert members["attempts_at"] == [rfc3339(at * 1000) for at in minutes(60, 61, 62)]
    assert members["expires_at"] == rfc3339((AT + 600) * 1000)
    assert (members["calls_in_minute"], members["calls_to_host"]) == (3, 2)
    assert members["lateness_ms"] == 0
    assert members["rate"] == {"calls_per_second": 256.0, "measured": False}
    assert members["host_rate"] == {"calls_per_second": 64.0, "measured": False}


def test_dry_run_creates_and_calls_nothing(world: World) -> None:
    world.scheduler.start()
    for body in ({**BODY, "trigger_at": "+0m"}, BODY):
        assert ask(world, "PUT", "/task/task?dry_run=true", body).json["would"] == "create"
    assert ask(world, "GET", "/status/").json == {"tasks": []}
    world.turn_to(AT + 100)
    assert world.caller.calls == []


CONDITIONS: list[dict[str, str]] = [{}, {"If-Match": "*"}, {"If-None-Match": "*"}]


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
@pytest.mark.parametrize("stands", [None, "same", "other", "running"])
@pytest.mark.parametrize("late", [False, True])
def test_dry_run_has_the_status_of_the_put(
    world: World, condition: dict[str, str], stands: str | None, late: bool
) -> None:
    body = {"callback": "http://sink.example/", "max_delay": 5}
    if stands is not None:
        world.put("task", max_delay=5, payload="p" if stands == "other" else "")
    world.caller.answer = None
    if stands == "running":
        world.scheduler.start()
    if late:
        world.clock.rightNow += 300
    path = f"/task/task@{NOON}"
    before = world.task(definition("task").key) if stands else None
    dry = ask(world, "PUT", path + "?dry_run", body, headers=condition)
    assert not stands or world.task(definition("task").key) == before
    true = ask(world, "PUT", path, body, headers=condition)
    if true.status >= 400:
        assert (dry.status, dry.json) == (true.status, true.json)
    else:
        assert (dry.status, dry.json["status"]) == (200, true.status)
        assert dry.json["task"] == true.json
        would = {201: "create", 200: "replace" if stands == "other" else "keep"}
        assert dry.json["would"] == would[true.status]
        assert ("attempts_at" in dry.json) == (dry.json["would"] != "keep")


def test_dry_run_counts_a_replaced_task_once(world: World) -> None:
    world.put("task", AT)
    for host in ("sink.example", "other.example"):
        body = {**BODY, "callback": f"http://{host}/x"}
        dry = ask(world, "PUT", "/task/task?dry_run", body, headers={"If-Match": "*"}).json
        assert (dry["would"], dry["calls_in_minute"], dry["calls_to_host"]) == ("replace", 1, 1)


def test_dry_run_over_a_corrupt_row_is_answered(world: World) -> None:
    world.put(at=AT)
    world.store.connection.execute("UPDATE task SET callback = 'http://['")
    assert ask(world, "PUT", "/task/task?dry_run", BODY).status == 409
    dry = ask(world, "PUT", "/task/task?dry_run", BODY, headers={"If-Match": "*"}).json
    assert (dry["would"], dry["calls_in_minute"], dry["calls_to_host"]) == ("replace", 1, 1)


def test_dry_run_of_an_invalid_task_is_refused(world: World) -> None:
    assert ask(world, "PUT", "/task/task?dry_run", {**BODY, "retry": -1}).status == 422
    assert ask(world, "PUT", "/task/task?dry_run=x", BODY).status == 400


def batch(world: World, tasks: list[Any], query: str = "?dry_run") -> list[Any]:
    asking = world.http.request(
        "POST", f"http://callme/batch{query}", data=json.dumps(tasks).encode()
    )
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    response = world.result(asking)
    assert response.code == 200
    answers: list[Any] = json.loads(world.result(response.text()))
    return answers


def test_batch_dry_run_counts_earlier_items(world: World) -> None:
    world.put("beside", AT)
    tasks: list[Any] = [{**BODY, "task_name": f"t{number}"} for number in range(250)]
    tasks[120:120] = [{**BODY, "task_name": "t0"}, {**BODY, "task_name": "t1", "retry": 9}, 7]
    answers = batch(world, tasks)
    assert ask(world, "GET", "/status/").json["tasks"][1:] == []
    true = batch(world, tasks, "")
    assert [one["status"] for one in answers] == [one["status"] for one in true]
    assert answers[122] == true[122]
    assert answers[120]["would"] == "keep"
    assert answers[121]["status"] == 409
    created = [one for one in answers if one.get("would") == "create"]
    assert [one["calls_in_minute"] for one in created] == list(range(2, 252))
    assert created[-1]["calls_to_host"] == 251
    # 64 calls have a slot, and 64 end in a second.
    assert created[-1]["lateness_ms"] == round((251 - 64) / 64 * 1000)
    assert "payload" not in created[0]["task"]


def test_batch_dry_run_keeps_the_order_of_items(world: World) -> None:
    pending: list[Deferred[None]] = []
    store, real = world.store, partial(world.store.query, stats.preview_put)

    def slowly(*args: Any) -> Any:
        pending.append(Deferred())
        return pending[-1].addCallback(lambda _: real(*args))

    store.overrides[stats.preview_put] = slowly
    tasks = [{**BODY, "task_name": f"t{number}"} for number in range(300)]
    data = json.dumps(tasks).encode()
    asking = world.http.request("POST", "http://callme/batch?dry_run", data=data)
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    while pending:
        # The reads end in reverse order.
        pending.pop().callback(None)
        for _ in range(20):
            world.http.flush()
            world.clock.advance(0)
    answers = json.loads(world.result(world.result(asking).text()))
    assert [one["calls_in_minute"] for one in answers] == list(range(1, 301))


def test_batch_dry_run_lists_first_attempts(world: World) -> None:
    (one,) = batch(world, [{**BODY, "task_name": "a", "retry": 1000, "max_delay": 5000}])
    assert one["attempts_at"] == [rfc3339(at * 1000) for at in minutes(*range(60, 70))]


# The forecast


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
    world.caller.answer = 500
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
    told = World.result(forecaster(world.store, Capacity(1, 1), world.clock).forecast(1))
    assert told.minutes == {NOON: 100}
    of_fleet, of_host = told.overloads
    assert of_fleet == overload(MinuteLoad(NOON, None, 100, NOON + 60), NOON + 99, 40)
    assert of_host == overload(MinuteLoad(NOON, HOST, 100, NOON + 60), NOON + 99, 40)


def forecaster(store: Any, capacity: Capacity, clock: Clock) -> Forecaster:
    return Forecaster(store=store, capacity=lambda: capacity, clock=clock, now=clock.seconds)


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
    told = World.result(forecaster(world.store, Capacity(1, 1), world.clock).forecast(1))
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
                hosts=[MinuteLoad(NOON, host, 1000, NOON + 60) for host in hosts],
            )
        )


def test_truncated_forecast_gives_its_end() -> None:
    store = Crowd()
    narrow = Capacity(10**7, 10)
    for hosts, complete in ((MAX_OVERLOADS, True), (MAX_OVERLOADS + 1, False), (MAX_LOADS, False)):
        store.hosts = hosts
        told = World.result(forecaster(store, narrow, clock_at(NOON + 1)).forecast(24))
        assert (told.complete, len(told.overloads)) == (complete, MAX_OVERLOADS)
    # Few hosts are overloaded, but more may be beyond the end of the query.
    roomy = Capacity(10**7, 1000)
    cut = World.result(forecaster(store, roomy, clock_at(NOON)).forecast(1))
    assert (cut.complete, cut.overloads) == (False, [])
    store.close()


# Shared and cached forecasts


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
    return forecaster(store, Capacity(256, 64), clock), clock


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
