"""Damaged names, minutes and values in both databases: lists, deletes, claims and the search."""

from __future__ import annotations

from typing import Any

import pytest

from callme.core.task import State, Task
from callme.core.times import Key
from callme.store import queue, tasks
from callme.store.database import Store, Write
from callme.store.interface import Deleted, StartGone
from callme.store.listing import actions
from callme.store.listing.damaged import DamagedTask, find_damaged
from callme.store.listing.plan import select_keys
from callme.store.listing.selection import Selection
from callme.store.sqlite.engine import SqliteStore
from tests.helpers.stores import HOST, claim_all, finish, put
from tests.helpers.tasks import NOON

NAMES = {
    "too-long": "'m" + "x" * 300 + "'",
    "at": "'b@b'",
    "slash": "'c/c'",
    "control": "'d' || chr(7)",
    "empty": "''",
}
"""Names, as SQL of both databases, that no client can give a task."""
SQLITE_NAMES = {"bytes": "x'ff00'", "not-utf8": "CAST(x'62ff61' AS TEXT)"}


async def set_column(store: Store, column: str, value: str, where: str) -> None:
    """Change a column of some tasks, as another program may.

    :param value: SQL, in which ``chr`` returns a character.
    """

    def change(write: Write) -> None:
        text = value.replace("chr(", "char(") if isinstance(store, SqliteStore) else value
        write.cursor.execute(f"UPDATE task SET {column} = {text} WHERE {where}")

    await store.write(change)


async def damage_names(store: Store) -> int:
    """Put intact tasks, and others with damaged names among them; return the number of these."""
    names = NAMES | (SQLITE_NAMES if isinstance(store, SqliteStore) else {})
    for name in names:
        await put(store, f"damaged-{name}", labels={"team": "a"})
        await set_column(store, "task_name", names[name], f"task_name = 'damaged-{name}'")
    for name in ("a", "b", "c", "d", "m", "n", "z"):
        await put(store, name, labels={"team": "a"})
    return len(names)


async def pages(store: Store, limit: int, **more: Any) -> list[Task]:
    """Return the tasks of all pages, each begun where the last one ended; check the way back."""
    found: list[Task] = []
    starts: list[Key] = []
    start = None
    while True:
        page = await store.read(tasks.list_page, limit=limit, start_from=start, **more)
        assert page is not None
        found += page.tasks
        assert len(page.tasks) == limit or page.next is None
        # The page before one may begin at an orphan among the labels.
        if start is not None and "labels" not in more:
            before = await store.read(tasks.previous_page, limit=limit, start_from=start, **more)
            assert before == starts[-1]
        if page.next is None:
            return found
        starts.append(page.tasks[0].key)
        start = page.next


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "more",
    [{}, {"by_due": True}, {"labels": [("team", "a")]}, {"host": HOST}, {"state": State.SCHEDULED}],
)
async def test_pages_across_damaged_names_have_every_task_once(
    store: Store, limit: int, more: dict[str, Any]
) -> None:
    damaged = await damage_names(store)
    found = await pages(store, limit, **more)
    if "labels" in more:
        # The table of labels has the name that the task had.
        found = [task for task in found if not task.damaged]
        damaged = 0
    keys = [task.key for task in found]
    assert len(set(keys)) == len(keys) == 7 + damaged
    assert sorted(key.task_name for key in keys if key.row_number is None) == list("abcdmnz")
    assert {task.damaged for task in found} - {()} <= {("task_name",)}


async def test_task_with_a_damaged_name_is_found_and_deleted_by_its_row(store: Store) -> None:
    damaged = await damage_names(store)
    page = await store.read(tasks.list_page)
    assert page is not None
    keys = [task.key for task in page.tasks if task.damaged]
    assert len(keys) == damaged
    for key in keys:
        assert key.row_number is not None
        task = await store.read(tasks.get, key)
        assert task is not None
        assert (task.key, task.damaged) == (key, ("task_name",))
        result = await store.write(tasks.reschedule, key, NOON + 60, NOON, include_all_states=True)
        assert result is not None
        assert "is damaged" in str(result.conflict)
        assert await store.write(tasks.delete, key) == Deleted(count=1)
        assert await store.read(tasks.get, key) is None
        assert await store.write(tasks.delete, key) is None


async def test_page_cannot_begin_at_a_damaged_task_that_is_gone(store: Store) -> None:
    await put(store)
    gone = Key.of_row(999)
    for query in (tasks.list_page, tasks.previous_page):
        with pytest.raises(StartGone, match="@999"):
            await store.read(query, start_from=gone)


async def test_action_on_many_tasks_deletes_damaged_ones_and_moves_none(store: Store) -> None:
    damaged = await damage_names(store)
    selection = Selection(state=State.SCHEDULED)
    keys, following = await store.read(select_keys, selection, None, 100)
    assert (len(keys), following) == (7 + damaged, None)
    first, rest = await store.read(select_keys, selection, None, 1)
    assert rest in keys
    assert first[0] != rest
    move = actions.MoveStep(
        selection=selection,
        keys=keys,
        minutes=[NOON + 3600] * len(keys),
        include_all_states=True,
        start_from=None,
        after=None,
    )
    moved = await store.write(actions.move_step, move, NOON)
    assert len(moved.moved) == 7
    assert sorted(moved.skipped) == sorted(
        (key, "damaged") for key in keys if key.row_number is not None
    )
    keys, _ = await store.read(select_keys, selection, None, 100)
    step = actions.Step(selection=selection, keys=keys)
    assert (await store.write(actions.delete_step, step)).count == 7 + damaged


async def test_claim_of_a_task_with_a_damaged_name_fails_it(store: Store) -> None:
    damaged = await damage_names(store)
    claims = await claim_all(store)
    assert sorted(claim.definition.task_name for claim in claims) == list("abcdmnz")
    failed = await store.read(tasks.list_page, state=State.FAILED)
    assert failed is not None
    assert len(failed.tasks) == damaged
    assert (await store.write(queue.expire_overdue, NOON + 60)).hosts == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("attempts_used", "-5"),
        ("attempts_used", "2147483647"),
        ("last_attempt", "-5"),
        ("last_attempt", "2147483647"),
        ("created_at_ms", "-1000000000000000"),
        ("created_at_ms", "1000000000000000000"),
        ("retry", "-1"),
        ("retry", "2147483647"),
        ("timeout", "2147483647"),
        ("max_delay", "2147483647"),
        ("retry_delay", "'[99999999999999999999]'"),
        ("callback", "'nonsense'"),
        ("callback_method", "'G T'"),
        ("on_failure", "'nonsense'"),
    ],
)
async def test_value_out_of_bounds_keeps_no_other_task_from_its_claim(
    store: Store, column: str, value: str
) -> None:
    key = await put(store, "damaged")
    fine = await put(store, "fine")
    await set_column(store, column, value, "task_name = 'damaged'")
    assert [claim.definition.key for claim in await claim_all(store)] == [fine]
    task = await store.read(tasks.get, key)
    assert task is not None
    assert task.state is State.FAILED
    assert f"{column}" in task.detail
    assert await store.write(tasks.delete, key) == Deleted(count=1)


async def test_damaged_time_of_the_next_attempt_makes_no_early_call(store: Store) -> None:
    await put(store, "later", NOON + 3600)
    await set_column(store, "due_at", "-600", "task_name = 'later'")
    assert await claim_all(store) == []


async def test_purge_deletes_no_task_that_has_not_ended(store: Store) -> None:
    for name, value in (("early", "5"), ("damaged", "-1000000000000000")):
        await put(store, name, NOON + 3600)
        await set_column(store, "finished_at_ms", value, f"task_name = '{name}'")
    assert await store.write(queue.purge, NOON, 10, NOON) == 0


async def test_search_for_damaged_rows_examines_every_task_once(store: Store) -> None:
    damaged = await damage_names(store)
    key = await put(store, "headers")
    await set_column(store, "headers", "'{'", "task_name = 'headers'")
    found: list[DamagedTask] = []
    after = reads = 0
    while True:
        examined = await store.read(find_damaged, after, 3)
        found += examined.damaged
        if examined.last_row is None:
            break
        after, reads = examined.last_row, reads + 1
    assert len({task.key for task in found}) == len(found) == damaged + 1
    (of_headers,) = [task for task in found if task.key == key]
    assert of_headers.columns == ("headers",)
    assert reads == -(-(damaged + 8) // 3)


async def test_search_finds_damaged_attempts(store: Store) -> None:
    key = await put(store, retry=1)
    (claim,) = await claim_all(store)
    await finish(store, claim, 500)

    def spoil(write: Write) -> None:
        write.cursor.execute("UPDATE attempt SET reason = 'boredom'")

    await store.write(spoil)
    (found,) = (await store.read(find_damaged, 0, 10)).damaged
    assert (found.key, found.columns) == (key, ("attempts",))
