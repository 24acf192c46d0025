"""The nearest existing task, for the text of an error: found by the index of the keys alone."""

from __future__ import annotations

import pytest

from callme.core.times import Key
from callme.store.database import Store
from callme.store.listing.nearby import nearest_task
from tests.helpers.filled_store import fill
from tests.helpers.query_plans import explain
from tests.helpers.tasks import NOON


@pytest.mark.parametrize("target", [Key("a3", NOON + 1), Key("a33", NOON), "b"])
async def test_nearest_task_is_found_by_the_index_of_the_keys(
    store: Store, target: Key | str
) -> None:
    await fill(store)
    steps = await store.read(explain, lambda cursor: nearest_task(cursor, target, ""))
    assert steps
    for step in steps:
        assert "Seq Scan" not in step, steps
        assert not step.startswith("SCAN task"), steps
        assert "TEMP B-TREE" not in step, steps
        assert not step.lstrip().startswith("->  Sort"), steps


async def test_nearest_task_is_that_of_the_time_or_else_of_a_similar_name(store: Store) -> None:
    everything = [task.key for task in await fill(store)]
    for key in everything[:20]:
        others = [one for one in everything if one.task_name == key.task_name]
        for missing in (Key(key.task_name, key.trigger_at + 1), Key(key.task_name, 60)):
            found = await store.read(nearest_task, missing, "")
            assert isinstance(found, Key)
            assert found in others
            distance = abs(found.trigger_at - missing.trigger_at)
            assert distance == min(abs(one.trigger_at - missing.trigger_at) for one in others)
    assert await store.read(nearest_task, "unlike-any", "") is None
    assert await store.read(nearest_task, Key("ab100", NOON), "") in {
        k.task_name for k in everything
    }
    assert await store.read(nearest_task, Key("ab100", NOON), "ab100") is None
