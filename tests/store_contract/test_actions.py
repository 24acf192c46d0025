"""Actions on the tasks that match filters, compared with a plain filter over all tasks."""

from __future__ import annotations

from typing import Any

import pytest

from callme.core.task import State, Task
from callme.core.times import MINUTE, Key
from callme.store import tasks
from callme.store.database import Store
from callme.store.listing import actions
from callme.store.listing.plan import select_keys
from callme.store.listing.selection import Selection
from tests.helpers.filled_store import fill, matches
from tests.helpers.stores import put, record_changes
from tests.helpers.tasks import NOON

FILTERS: list[dict[str, Any]] = [
    {"host": "a.example:80"},
    {"prefix": "a", "labels": [("customer", "1")]},
    {"labels": [("tier", "gold"), ("customer", "2")], "due_from": NOON + 60},
    {"state": State.SUCCEEDED, "host": "b.example:80"},
    {"state": State.SCHEDULED, "due_before": NOON + 240},
    {"prefix": "b", "due_from": NOON + 60, "due_before": NOON + 180},
]


async def all_tasks(store: Store) -> dict[Key, Task]:
    page = await store.read(tasks.list_page, limit=1000)
    assert page is not None
    return {task.key: task for task in page.tasks}


async def matching(store: Store, selection: Selection) -> list[Key]:
    """Return all keys that match, page by page."""
    found: list[Key] = []
    start_from: Key | None = None
    while True:
        keys, start_from = await store.read(select_keys, selection, start_from, 7)
        found += keys
        if start_from is None:
            return found


def moving(selection: Selection, keys: list[Key], at: int, **more: Any) -> actions.MoveStep:
    return actions.MoveStep(
        selection=selection,
        keys=keys,
        minutes=[at] * len(keys),
        **{"include_all_states": True, "start_from": None, "after": None, **more},
    )


@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_move_takes_matching_tasks_and_leaves_all_others(
    store: Store, filters: dict[str, Any]
) -> None:
    before = {task.key: task for task in await fill(store)}
    selection = Selection(**filters)
    keys = await matching(store, selection)
    assert keys == sorted(key for key, task in before.items() if matches(task, filters))
    running = [key for key in keys if before[key].state is State.RUNNING]
    step = moving(selection, keys, NOON + 120)
    preview = await store.read(actions.preview_move, step, NOON + 300)
    assert await all_tasks(store) == before
    changes = record_changes(store)
    result = await store.write(actions.move_step, step, NOON + 300)
    assert result == preview
    assert [key for key, _ in result.moved] == [key for key in keys if key not in running]
    assert [key for key, _ in result.skipped] == running
    after = await all_tasks(store)
    assert len(after) == len(before)
    for old, new in result.moved:
        assert after[new].state is State.SCHEDULED
        assert after[new].due_at == new.trigger_at
        assert new.trigger_at >= NOON + 120
        assert after[new].definition == before[old].definition._replace(trigger_at=new.trigger_at)
    gone = {old for old, _ in result.moved}
    for key in before.keys() - gone:
        assert after[key] == before[key]
    assert {key for change in changes for key in change.keys} == gone
    hosts = [change.due_hosts for change in changes]
    assert len(hosts) == 1
    assert set(hosts[0]) <= {"a.example:80", "b.example:80"}, "one entry for each host"


@pytest.mark.parametrize("filters", FILTERS, ids=str)
async def test_delete_takes_matching_tasks_and_leaves_all_others(
    store: Store, filters: dict[str, Any]
) -> None:
    before = {task.key: task for task in await fill(store)}
    selection = Selection(**filters)
    step = actions.Step(selection=selection, keys=await matching(store, selection))
    preview = await store.read(actions.preview_delete, step)
    assert await all_tasks(store) == before
    result = await store.write(actions.delete_step, step)
    assert result == preview
    running = [key for key in step.keys if before[key].state is State.RUNNING]
    assert list(result.running) == running
    gone = set(step.keys) - set(running)
    assert result.count == len(gone)
    assert await all_tasks(store) == {key: task for key, task in before.items() if key not in gone}


async def test_task_that_no_longer_matches_is_not_changed(store: Store) -> None:
    before = {task.key: task for task in await fill(store)}
    failed = [key for key, task in before.items() if task.state is State.FAILED]
    selection = Selection(state=State.SUCCEEDED)
    result = await store.write(actions.delete_step, actions.Step(selection=selection, keys=failed))
    assert result.count == 0
    moved = await store.write(actions.move_step, moving(selection, failed, NOON + 600), NOON)
    assert not moved.moved
    assert await all_tasks(store) == before


async def test_tasks_of_a_name_follow_those_of_the_step_before(store: Store) -> None:
    await fill(store)
    selection = Selection(prefix="a1")
    keys = [key for key in await matching(store, selection) if key.task_name == "a1"]
    first = Key("a1", NOON + 6000)
    result = await store.write(
        actions.move_step, moving(selection, keys, NOON + 3000, after=first), NOON
    )
    assert [new.trigger_at for _, new in result.moved] == [
        first.trigger_at + MINUTE * (number + 1) for number in range(len(result.moved))
    ]


async def test_long_run_of_taken_minutes_is_passed(store: Store) -> None:
    selection = Selection(prefix="x")
    for minute in range(6):
        await put(store, "x", NOON + MINUTE * (minute + 10))
    key = await put(store, "x", NOON)
    step = moving(selection, [key], NOON + 600)
    result = await store.write(actions.move_step, step, NOON)
    assert result.moved == [(key, Key("x", NOON + 960))]
