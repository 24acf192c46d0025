"""The table of labels follows the tasks through every operation."""

from __future__ import annotations

from typing import Any

from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.store import queue, tasks
from callme.store.database import Store
from callme.store.interface import Cursor
from tests.helpers.stores import NOW, claim_all, finish, put
from tests.helpers.tasks import NOON, definition

LABELS = {"customer": "4\"2'\\ é", "tier": ""}


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    rows = cursor.execute("SELECT key, value, task_name, trigger_at FROM task_label")
    return sorted(map(tuple, rows))


async def labelled(store: Store) -> set[Key]:
    """Return the keys in the table of labels, whose labels must all be :data:`LABELS`."""
    rows = await store.read(_rows)
    keys = {Key(name, at) for *_, name, at in rows}
    assert rows == sorted(
        (*label, key.task_name, key.trigger_at) for key in keys for label in LABELS.items()
    )
    return keys


async def test_labels_of_put_replaced_and_deleted_tasks_are_indexed(store: Store) -> None:
    plain = await put(store, "plain")
    key = await put(store, labels=LABELS)
    assert await labelled(store) == {key}
    await store.write(tasks.put, definition("plain", labels=LABELS), PutCondition.MUST_EXIST, NOW)
    assert await labelled(store) == {key, plain}
    await store.write(
        tasks.put, definition("plain", retry=3, labels=LABELS), PutCondition.MUST_EXIST, NOW
    )
    assert await labelled(store) == {key, plain}
    await store.write(tasks.put, definition("plain"), PutCondition.MUST_EXIST, NOW)
    assert await labelled(store) == {key}
    await store.write(tasks.delete, key)
    assert await labelled(store) == set()


async def test_labels_of_a_batch_are_indexed_once(store: Store) -> None:
    many = [definition(f"task.{number % 3}", labels=LABELS) for number in range(4)]
    await store.write(tasks.put_many, [*many, definition("plain")], NOW)
    assert await labelled(store) == {one.key for one in many}
    await store.write(tasks.put_many, many, NOW)
    assert await labelled(store) == {one.key for one in many}
    await store.write(tasks.delete_name, "task.1")
    assert await labelled(store) == {many[0].key, many[2].key}


async def test_labels_follow_rescheduled_tasks(store: Store) -> None:
    first = await put(store, labels=LABELS)
    await put(store, at=NOON + 60, labels=LABELS)
    await store.write(tasks.reschedule, first, NOON + 180, NOW, include_all_states=True)
    assert await labelled(store) == {Key("task", NOON + 60), Key("task", NOON + 180)}
    await store.write(tasks.reschedule_name, "task", NOON + 120, NOW, include_all_states=True)
    assert await labelled(store) == {Key("task", NOON + 120), Key("task", NOON + 180)}


async def test_labels_outlast_a_call_and_end_with_the_purge(store: Store) -> None:
    key = await put(store, labels=LABELS)
    (claim,) = await claim_all(store)
    assert claim.definition.labels == LABELS
    await finish(store, claim, 200)
    assert await labelled(store) == {key}
    assert await store.write(queue.purge, NOW + 3600, 10, 0) == 1
    assert await labelled(store) == set()
