"""Filtered and ordered lists, compared with a plain filter over all tasks."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from callme.core.callback_url import host_of
from callme.core.task import Outcome, Reason, State
from callme.core.times import Key
from callme.core.transitions import PutCondition, decide_after_attempt
from callme.store import queue, tasks
from callme.store.database import Store
from callme.store.listing import activity, counts, sources
from callme.store.sqlite.engine import SqliteStore
from tests.helpers.filled_store import HOSTS, fill, matches
from tests.helpers.query_plans import explain
from tests.helpers.tasks import NOON, definition

CHOICES: dict[str, list[Any]] = {
    "task_name": ["a3", "ab10"],
    "prefix": ["a", "ab", "b1", "none"],
    "state": list(State),
    "reason": list(Reason)[:3],
    "host": [*HOSTS, "none.example:80"],
    "labels": [[("customer", "1")], [("tier", "gold"), ("customer", "2")], [("none", "")]],
    "due_from": [NOON, NOON + 60, NOON + 120],
    "due_before": [NOON + 120, NOON + 240],
}


def some_filters() -> list[dict[str, Any]]:
    """Return each filter alone with each value, and many combinations."""
    found: list[dict[str, Any]] = [{}]
    found += [{"task_name": "a3", "prefix": "a"}, {"task_name": "a3", "prefix": "b"}]
    found += [{name: value} for name, values in CHOICES.items() for value in values]
    picked = random.Random(2)
    for _ in range(60):
        names = picked.sample(sorted(CHOICES), picked.randrange(2, 5))
        found.append({name: picked.choice(CHOICES[name]) for name in names})
    return found


async def keys(store: Store, limit: int, **query: Any) -> list[Key]:
    """Return the keys on all pages."""
    found: list[Key] = []
    start_from: Key | None = None
    while True:
        page = await store.read(tasks.list_page, start_from=start_from, limit=limit, **query)
        assert page is not None
        found += [task.key for task in page.tasks]
        assert len(page.tasks) <= limit
        assert page.next is None or page.next != start_from
        start_from = page.next
        if start_from is None:
            return found
        assert start_from.task_name.startswith(query.get("prefix", ""))


def plans(cursor: Any, filters: dict[str, Any], by_due: bool) -> list[str]:
    """Return the steps of the database for a page after the first, index and sort in each."""
    listing: dict[str, Any] = {"start_from": Key("a", NOON), "limit": 7, "by_due": by_due}
    return explain(cursor, lambda recorder: tasks.list_page(recorder, **listing, **filters))


@pytest.mark.parametrize("by_due", [False, True])
@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "task_time"),
        ({"state": State.FAILED}, "task_failed"),
        ({"state": State.SCHEDULED}, "task_due"),
        ({"state": State.SUCCEEDED}, "task_finished"),
        ({"state": State.RUNNING}, "task_running"),
        ({"reason": Reason.TIMEOUT}, "task_reason"),
        ({"host": HOSTS[0]}, "task_host_ended"),
        ({"labels": [("customer", "1")]}, "(key"),
        ({"labels": [("customer", "1")], "state": State.FAILED}, "(key"),
        ({"prefix": "ab"}, "task_name"),
        ({"due_from": NOON, "due_before": NOON + 60}, "task_time"),
    ],
)
async def test_each_filter_uses_its_index(
    store: Store, filters: dict[str, Any], index: str, by_due: bool
) -> None:
    await fill(store)
    found = await store.read(plans, filters, by_due)
    for step in found:
        # SQLite searches with a constraint, and scans an index from its beginning.
        assert "Seq Scan on task" not in step, found
        assert not step.startswith("SCAN task") or "USING" in step, found
    # PostgreSQL chooses by its statistics among the indexes of so few tasks.
    if (filters or by_due) and isinstance(store, SqliteStore):
        assert any(index in step for step in found), found
    # One sort is that of the rows of the page, the other that of at most MAX_EXAMINED keys.
    sorts = [step for step in found if "TEMP B-TREE FOR" in step or "Sort" in step.split("(")[0]]
    assert len(sorts) <= 2, found


@pytest.mark.parametrize("most", [3, 20, sources.MAX_EXAMINED])
async def test_pages_of_any_filters_have_exactly_the_matching_tasks_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(sources, "MAX_EXAMINED", most)
    everything = await fill(store)
    names = {task.key.task_name for task in everything}
    for filters in some_filters():
        if filters.get("task_name", "a3") not in names:
            continue
        expected = [task.key for task in everything if matches(task, filters)]
        assert await keys(store, 7, **filters) == expected, filters
        by_due = sorted(expected, key=lambda key: (key.trigger_at, key.task_name))
        assert await keys(store, 7, by_due=True, **filters) == by_due, filters


@pytest.mark.parametrize("most", [3, 20, sources.MAX_EXAMINED])
async def test_pages_before_other_pages_have_the_tasks_that_precede_them(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """From the end back to the beginning, no task is skipped, for any number of examined keys."""
    monkeypatch.setattr(sources, "MAX_EXAMINED", most)
    everything = await fill(store)
    last = Key("z", NOON + 3600)
    for filters in some_filters():
        if "task_name" in filters:
            continue
        expected = [task.key for task in everything if matches(task, filters)]
        for by_due in (False, True):
            listing: dict[str, Any] = {"limit": 7, "by_due": by_due, **filters}
            found: list[Key] = []
            before: Key | None = last
            while before is not None:
                start = await store.read(tasks.previous_page, start_from=before, **listing)
                if start is not None:
                    page = await store.read(tasks.list_page, start_from=start, **listing)
                    assert page is not None
                    earlier = [task.key for task in page.tasks if task.key not in found]
                    found = earlier + found
                    assert start != before
                before = start
            assert sorted(found) == sorted(expected), filters


async def test_counts_are_those_of_the_matching_tasks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = await fill(store)
    for filters in some_filters():
        if "task_name" in filters:
            continue
        matching = [task for task in everything if matches(task, filters)]
        assert await store.read(counts.count_tasks, **filters) == counts.Count(len(matching))
        others = {name: value for name, value in filters.items() if name != "state"}
        states = Counter(task.state for task in everything if matches(task, others))
        found = await store.read(counts.count_states, **filters)
        assert found == {state: counts.Count(states[state]) for state in State}
    monkeypatch.setattr(counts, "MAX_COUNTED", 10)
    assert await store.read(counts.count_tasks) == counts.Count(10, is_exact=False)
    for number in (0, 5):
        monkeypatch.setattr(counts, "MAX_COUNTED_BY_STATE", number)
        by_state = await store.read(counts.count_states, host=HOSTS[0])
        states = Counter(task.state for task in everything if matches(task, {"host": HOSTS[0]}))
        assert by_state == {
            state: counts.Count(min(number, states[state]), states[state] <= number)
            for state in State
        }
    monkeypatch.setattr(counts, "MAX_EXAMINED", 5)
    monkeypatch.setattr(sources, "MAX_EXAMINED", 5)
    found_few = await store.read(counts.count_tasks, prefix="a", due_before=NOON + 120)
    assert found_few.number <= 5
    assert not found_few.is_exact


async def test_next_tasks_are_the_earliest_due(store: Store) -> None:
    assert await store.read(activity.upcoming, 3) == activity.Upcoming(tasks=[], is_empty=True)
    everything = await fill(store)
    scheduled = [task for task in everything if task.state is State.SCHEDULED]
    found = await store.read(activity.upcoming, 3)
    assert not found.is_empty
    assert [task.due_at for task in found.tasks] == sorted(task.due_at or 0 for task in scheduled)[
        :3
    ]
    hosts = {task.key: host_of(task.definition.callback) for task in scheduled}
    assert all(hosts[task.key] == task.host for task in found.tasks)


async def test_failures_are_grouped_by_host_and_by_name(store: Store) -> None:
    empty = await store.read(activity.failure_groups)
    assert (empty.by_host, empty.examined, empty.is_complete) == ([], 0, True)
    everything = await fill(store)
    failures = [task for task in everything if task.state is State.FAILED]
    groups = await store.read(activity.failure_groups)
    assert (groups.examined, groups.is_complete) == (len(failures), True)
    expected = Counter(
        (host_of(task.definition.callback), task.reason.value) for task in failures if task.reason
    )
    assert {(one.host, one.reason): one.count for one in groups.by_host} == expected
    sizes = [one.count for one in groups.by_host]
    assert sizes == sorted(sizes, reverse=True)
    for one in groups.by_host:
        is_status = one.reason == Reason.UNEXPECTED_STATUS.value
        assert one.statuses == ({500: one.count} if is_status else {})
    assert {one.prefix for one in groups.by_prefix} <= {"a", "ab", "b"}
    assert sum(one.count for one in groups.by_prefix) == len(failures)
    few = await store.read(activity.failure_groups, 2)
    assert (few.examined, few.is_complete) == (2, False)


async def test_groups_by_name_end_at_its_first_separator_or_its_digits(store: Store) -> None:
    stems = {
        "invoice.42": "invoice.",
        "team-a.x": "team-",
        "drip7": "drip",
        "alone": "alone",
        "42": "42",
        ".x": ".x",
    }
    await store.write(queue.take_orphans, NOON)
    for name in stems:
        made = definition(name, at=NOON, callback=f"http://{HOSTS[0]}/", retry=0)
        await store.write(tasks.put, made, PutCondition.NONE, NOON)
    for claim in await store.write(queue.claim, {HOSTS[0]: len(stems)}, NOON):
        outcome = Outcome(started_at_ms=NOON * 1000, status=500)
        transition = decide_after_attempt(claim, outcome, NOON)
        await store.write(queue.record, claim, transition, NOON)
    groups = await store.read(activity.failure_groups)
    assert sorted(one.prefix for one in groups.by_prefix) == sorted(stems.values())
