"""The settings of hosts, and the lists of hosts: requirements on every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from callme.core.task import Reason, State
from callme.hosts import operations
from callme.hosts.operations import (
    delete_settings,
    each_due_host,
    list_hosts,
    load_settings,
    put_settings,
)
from callme.hosts.settings import INDEFINITELY, HostSettings
from callme.store import queue, tasks
from callme.store.changes import Changes
from callme.store.database import Store
from tests.helpers.query_plans import explain
from tests.helpers.stores import HOST, put, record_changes
from tests.helpers.tasks import NOON

OTHER = "other.example:80"


async def test_settings_of_a_host_are_changed_one_by_one(store: Store) -> None:
    changes: list[Changes] = record_changes(store)
    await store.write(put_settings, HOST, {"max_concurrent": 3}, NOON)
    await store.write(put_settings, HOST, {"max_per_minute": 10}, NOON)
    assert [one.changed_hosts for one in changes] == [{HOST}, {HOST}]
    settings = await store.write(put_settings, HOST, {"paused_until": NOON + 60}, NOON)
    assert settings == HostSettings(
        host=HOST,
        max_concurrent=3,
        max_per_minute=10,
        paused_at=NOON,
        paused_until=NOON + 60,
    )
    await store.write(put_settings, "*", {"paused_until": INDEFINITELY}, NOON)
    await store.write(put_settings, HOST, {"max_concurrent": None}, NOON)
    snapshot = await store.read(load_settings, "node")
    assert (snapshot.daemons, snapshot.rank) == (1, 0)
    found = {one.host: (one.max_concurrent, one.paused_until) for one in snapshot.settings}
    assert found == {"*": (None, INDEFINITELY), HOST: (None, NOON + 60)}
    await store.write(delete_settings, HOST)
    await store.write(delete_settings, HOST)
    snapshot = await store.read(load_settings, "node")
    assert [one.host for one in snapshot.settings] == ["*"]


async def test_ended_pause_stays_on_record(store: Store) -> None:
    await store.write(put_settings, HOST, {"paused_until": INDEFINITELY}, NOON)
    longer = await store.write(put_settings, HOST, {"paused_until": NOON + 600}, NOON + 60)
    assert longer is not None
    assert (longer.paused_at, longer.paused_until) == (NOON, NOON + 600)
    ended = await store.write(put_settings, HOST, {"paused_until": None}, NOON + 120)
    assert ended is not None
    assert (ended.paused_at, ended.paused_until) == (NOON, NOON + 120)
    again = await store.write(put_settings, HOST, {"paused_until": INDEFINITELY}, NOON + 180)
    assert again is not None
    assert again.paused_at == NOON + 180


async def test_number_of_hosts_with_settings_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_SETTINGS", 1)
    assert await store.write(put_settings, HOST, {"max_concurrent": 1}, NOON)
    assert await store.write(put_settings, OTHER, {"max_concurrent": 1}, NOON) is None
    assert await store.write(put_settings, HOST, {"max_concurrent": 2}, NOON)


async def test_task_that_is_too_late_for_a_pause_says_so(store: Store) -> None:
    await put(store, "paused", NOON, max_delay=1)
    await put(store, "other", NOON, max_delay=1, callback=f"http://{OTHER}/")
    await store.write(put_settings, HOST, {"paused_until": NOON + 30}, NOON - 30)
    await store.write(put_settings, OTHER, {"paused_until": NOON}, NOON - 30)
    await store.write(queue.expire_overdue, NOON + 60)
    page = await store.read(tasks.list_page, state=State.FAILED)
    assert page is not None
    details = {task.key.task_name: (task.reason, task.detail) for task in page.tasks}
    assert details["paused"][1].endswith("calls to the host were paused")
    assert "paused" not in details["other"][1]
    assert {reason for reason, _ in details.values()} == {Reason.TOO_LATE}


async def test_hosts_are_listed_by_name_with_their_tasks(store: Store) -> None:
    for name, host, at in (
        ("due", HOST, NOON),
        ("later", HOST, NOON + 600),
        ("next", OTHER, NOON + 600),
        ("running", "running.example:80", NOON),
    ):
        await put(store, name, at, callback=f"http://{host}/")
    await store.write(queue.claim, {"running.example:80": 1}, NOON)
    await store.write(put_settings, "set.example:80", {"max_concurrent": 1}, NOON)
    await store.write(put_settings, "*", {"max_concurrent": 9}, NOON)
    page = await store.read(
        list_hosts, start_from="", limit=9, now=NOON, others=["called.example:80"]
    )
    assert page.all_hosts.max_concurrent == 9
    assert page.next is None
    found = [(one.host, one.scheduled, one.due, one.running) for one in page.hosts]
    assert found == [
        ("called.example:80", 0, 0, 0),
        (OTHER, 1, 0, 0),
        ("running.example:80", 0, 0, 1),
        ("set.example:80", 0, 0, 0),
        (HOST, 2, 1, 0),
    ]
    first = await store.read(list_hosts, start_from="", limit=2, now=NOON)
    assert ([one.host for one in first.hosts], first.next) == (
        [OTHER, "running.example:80"],
        "set.example:80",
    )
    rest = await store.read(list_hosts, start_from=first.next or "", limit=2, now=NOON)
    assert [one.host for one in rest.hosts] == ["set.example:80", HOST]


async def test_each_due_host_is_found_once(store: Store) -> None:
    for number in range(3):
        await put(store, f"n{number}", NOON)
    await put(store, "other", NOON, callback=f"http://{OTHER}/")
    await put(store, "later", NOON + 600, callback="http://later.example/")
    assert await store.read(each_due_host, NOON) == [OTHER, HOST]
    await store.write(queue.claim, {HOST: 9, OTHER: 9}, NOON)
    assert await store.read(each_due_host, NOON) == []


async def test_hosts_are_listed_from_indexes(store: Store) -> None:
    """No query of hosts reads all tasks: each goes from host to host along an index."""
    for number in range(200):
        await put(store, f"task{number}", NOON + 60 * number)
    listing: dict[str, Any] = {"start_from": "a", "limit": 10, "now": NOON}
    queries: list[Callable[[Any], object]] = [
        lambda cursor: list_hosts(cursor, **listing),
        lambda cursor: each_due_host(cursor, NOON),
    ]
    for query in queries:
        steps = await store.read(explain, query)
        assert any("task_host" in step for step in steps), steps
        for step in steps:
            assert "Seq Scan on task" not in step, steps
            assert not step.startswith("SCAN task") or "INDEX" in step, steps
