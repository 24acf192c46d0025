"""The store's queries for dry runs, forecasts and calendars."""

from __future__ import annotations

from typing import Any

import pytest

from callme.core.task import State
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.reports import failures
from callme.reports.failures import OpenFailures, acknowledge, open_failures
from callme.store import queue, stats, tasks
from callme.store.database import Store
from callme.store.interface import (
    CalendarData,
    DueLoad,
    MinuteLoad,
    PutPreview,
)
from callme.store.stats import (
    due_counts_by_minute,
    load_by_minute,
    load_by_minute_and_host,
)
from tests.helpers.forecasts import FAR, minutes
from tests.helpers.stores import NOW, claim_all, finish, put, put_in
from tests.helpers.tasks import NOON, definition


async def read(store: Any, query: Any, *arguments: Any) -> Any:
    """Run a query of the store package in a separate transaction."""
    return await store._read(lambda cursor: query(cursor, *arguments))


async def test_preview_counts_simultaneous_calls(store: Store) -> None:
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
    assert found[0] == PutPreview(existing=None, calls=2, calls_to_host=1)


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
        MinuteLoad(minute=NOON, host=None, calls=4, expires_at=NOON + 300),
        MinuteLoad(minute=NOON + 60, host=None, calls=1, expires_at=late),
    ]
    of_hosts = [
        MinuteLoad(minute=NOON, host="a:80", calls=3, expires_at=NOON + 300),
        MinuteLoad(minute=NOON, host="b:80", calls=1, expires_at=NOON + 480),
        MinuteLoad(minute=NOON + 60, host="a:80", calls=1, expires_at=late),
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
    assert load.hosts == [
        MinuteLoad(minute=NOON + 60, host="a:80", calls=2, expires_at=NOON + 3660)
    ]
    assert [one.minute for one in (await due_load(NOON + 60, NOON + 60)).fleet] == [NOON + 60]


async def test_calendar_data_tells_when_a_task_was_put_or_rescheduled(store: Store) -> None:
    key = await put(store, "a", NOON + 60)

    async def changed() -> tuple[int, int]:
        agenda = await store.read(
            stats.calendar, None, until=NOON + 600, failed_since=NOON, limit=5
        )
        assert agenda is not None
        (event,) = agenda.scheduled
        return event.planned_at_ms, event.changed_at_ms

    options = {"include_all_states": True}
    for number, minute in enumerate((key.trigger_at, NOON + 120), start=1):
        now = NOW + number
        await store.write(tasks.reschedule, key, minute, now, **options)
        key = Key("a", minute)
        assert await changed() == (int(now * 1000), int(now * 1000))
    await store.write(tasks.reschedule_name, "a", NOON + 180, NOW + 3, **options)
    assert await changed() == (int((NOW + 3) * 1000), int((NOW + 3) * 1000))
    replacing = definition("a", NOON + 180, retry=5)
    await store.write(tasks.put, replacing, PutCondition.MUST_EXIST, NOW + 9)
    assert await changed() == (int((NOW + 9) * 1000), int((NOW + 9) * 1000))


async def test_calendar_data_lists_scheduled_and_failed_tasks(store: Store) -> None:
    failed = await put_in(store, State.FAILED, "b", NOON)
    await put_in(store, State.SUCCEEDED, "b", NOON + 60)
    await put_in(store, State.RUNNING, "b", NOON + 120)
    late, early = await put(store, "a", NOON + 240), await put(store, "b", NOON + 180)
    bounds: Any = {"until": NOON + 241, "failed_since": NOON, "limit": 5}
    for name, keys in ((None, [early, late]), ("a", [late]), ("b", [early])):
        agenda = await store.read(stats.calendar, name, **bounds)
        assert agenda is not None
        assert [event.task.key for event in agenda.scheduled] == keys
        assert [event.task.key for event in agenda.failed] == ([] if name == "a" else [failed])
        assert (agenda.more_scheduled, agenda.more_failed) == (False, False)
    assert agenda is not None
    assert agenda.failed[0].task.attempts_used == 1
    for event in (agenda.failed[0], agenda.scheduled[0]):
        assert (event.planned_at_ms, event.changed_at_ms) == (int(NOW * 1000), int(NOW * 1000))
    assert await store.read(stats.calendar, "nobody", **bounds) is None
    for name in (None, "b"):
        assert await store.read(
            stats.calendar, name, until=NOON + 180, failed_since=NOON + 1, limit=5
        ) == CalendarData(scheduled=[], failed=[])
    few = await store.read(stats.calendar, None, until=NOON + 241, failed_since=NOON, limit=1)
    assert few is not None
    assert [event.task.key for event in few.scheduled] == [early]
    assert (few.more_scheduled, few.more_failed) == (True, False)


async def outcomes(store: Store, since: int = NOON) -> list[tuple[int, int, int]]:
    """Return the begin of each minute of the history, its successes and its failures."""
    found = await store.read(stats.history, since)
    assert sum(one.lateness_ms.count for one in found) == sum(
        one.succeeded + one.failed for one in found
    )
    return [(one.minute, one.succeeded, one.failed) for one in found]


async def test_history_keeps_tasks_that_are_moved_or_deleted(store: Store) -> None:
    later = NOON + 7200
    for at in minutes(0, 1, 2):
        await put_in(store, State.FAILED, "a", at)
        await put_in(store, State.SUCCEEDED, "b", at)
    await put(store, "c", later)
    before = await outcomes(store)
    assert before == [(at, 1, 1) for at in minutes(0, 1, 2)]
    lateness = [one.lateness_ms for one in await store.read(stats.history, NOON)]
    a, b = Key("a", NOON), Key("b", NOON)
    every = {"include_all_states": True}
    await store.write(tasks.reschedule, a, later, NOW, **every)
    assert await outcomes(store) == before
    await store.write(tasks.reschedule_name, "a", later + 60, NOW, **every)
    await store.write(tasks.delete, b)
    assert await outcomes(store) == before
    await store.write(tasks.delete_name, "b")
    assert await outcomes(store) == before
    assert [one.lateness_ms for one in await store.read(stats.history, NOON)] == lateness
    assert await outcomes(store, NOON + 60) == before[1:]
    # Tasks that have not ended are not part of the history; a second run counts separately.
    await store.write(tasks.delete, Key("c", later))
    for at in (later + 60, later + 120):
        await store.write(tasks.delete, Key("a", at))
    (claim,) = await claim_all(store, now=later + 180)
    await finish(store, claim, 200, now=later + 180)
    assert await outcomes(store) == [*before, (later + 180, 1, 0)]


async def test_history_keeps_nothing_of_tasks_that_ended_long_ago(store: Store) -> None:
    day = 86_400
    old, new = NOON, NOON + 2 * day
    for at in (old, old + 60, new):
        await put_in(store, State.FAILED, "a", at)
    await store.write(tasks.delete, Key("a", old))
    assert await store.write(queue.purge, old + 120, 10, 0) == 1
    assert await outcomes(store, old) == [(new, 0, 1)]
    await store.write(tasks.delete, Key("a", new))
    assert await outcomes(store, old) == [(new, 0, 1)]
    newest = new + 2 * day
    await put_in(store, State.FAILED, "a", newest)
    await store.write(tasks.reschedule, Key("a", newest), newest + 60, NOW, include_all_states=True)
    assert await outcomes(store, old) == [(new, 0, 1), (newest, 0, 1)]
    # Later, a purge deletes the stored outcomes.
    assert await store.write(queue.purge, old, 1, newest) == 0
    assert await outcomes(store, old) == [(newest, 0, 1)]


async def test_purge_deletes_outcomes_in_batches(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "OUTCOMES_PER_TASK", 2)
    for at in minutes(0, 1, 2, 3, 4):
        await put_in(store, State.FAILED, "a", at)
    await store.write(tasks.delete_name, "a")
    for left in (3, 1, 1):
        await store.write(queue.purge, NOON, 1, NOON + 200)
        assert len(await outcomes(store)) == left


async def test_open_failures_are_those_after_the_acknowledgement(store: Store) -> None:
    empty = OpenFailures(count=0, latest_ms=None)
    assert await store.read(open_failures, 0) == empty
    for number, at in enumerate(minutes(0, 1, 2, 3)):
        await put_in(store, State.FAILED, f"x{number}", at)
    await put_in(store, State.SUCCEEDED, "y", NOON + 600)
    latest_ms = (NOON + 180) * 1000
    assert await store.read(open_failures, NOON * 1000) == OpenFailures(
        count=3, latest_ms=latest_ms
    )
    for until in (NOON + 60, NOON):
        await store.write(acknowledge, until * 1000)
        assert await store.read(open_failures, 0) == OpenFailures(
            count=2, latest_ms=latest_ms, acknowledged_until_ms=(NOON + 60) * 1000
        )
    await store.write(tasks.delete, Key("x3", NOON + 180))
    found = await store.read(open_failures, (NOON + 60) * 1000)
    assert (found.count, found.latest_ms) == (1, (NOON + 120) * 1000)


async def test_open_failures_are_counted_up_to_a_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MAX_FAILURE_COUNT", 2)
    for number, at in enumerate(minutes(0, 1, 2)):
        await put_in(store, State.FAILED, f"x{number}", at)
    assert (await store.read(open_failures, 0)).count == 2
