"""A store with tasks of two hosts in every state, and a plain filter over them."""

from __future__ import annotations

import random
from typing import Any

from callme.core.callback_url import host_of
from callme.core.task import Outcome, Reason, State, Task
from callme.core.transitions import PutCondition, decide_after_attempt
from callme.store import queue, tasks
from callme.store.database import Store
from tests.helpers.tasks import NOON, definition

HOSTS = ("a.example:80", "b.example:80")


async def fill(store: Store) -> list[Task]:
    """Put tasks of two hosts in every state, and return all of them."""
    await store.write(queue.take_orphans, NOON)
    picked = random.Random(1)
    for number in range(90):
        labels = {
            "customer": str(picked.randrange(3)),
            **({"tier": "gold"} if picked.randrange(2) else {}),
        }
        made = definition(
            f"{picked.choice(['a', 'ab', 'b'])}{number % 30}",
            at=NOON + 60 * picked.randrange(5),
            callback=f"http://{picked.choice('ab')}.example/",
            retry=0,
            labels=labels if picked.randrange(3) else {},
        )
        await store.write(tasks.put, made, PutCondition.NONE, NOON)
    claims = await store.write(queue.claim, dict.fromkeys(HOSTS, 30), NOON + 240)
    for number, claim in enumerate(claims[6:]):
        outcome = Outcome(started_at_ms=NOON * 1000 + number, status=200 if number % 2 else 500)
        if number % 3 == 0:
            outcome = Outcome(started_at_ms=NOON * 1000, reason=Reason.TIMEOUT)
        transition = decide_after_attempt(claim, outcome, NOON + 300)
        await store.write(queue.record, claim, transition, NOON + 300)
    page = await store.read(tasks.list_page, limit=1000)
    assert page is not None
    assert {task.state for task in page.tasks} == set(State)
    return list(page.tasks)


def matches(task: Task, filters: dict[str, Any]) -> bool:
    checks = {
        "task_name": lambda name: task.key.task_name == name,
        "prefix": task.key.task_name.startswith,
        "state": lambda state: task.state is state,
        "reason": lambda reason: task.reason is reason,
        "host": lambda host: host_of(task.definition.callback) == host,
        "labels": lambda labels: set(labels) <= set(task.definition.labels.items()),
        "due_from": lambda at: task.key.trigger_at >= at,
        "due_before": lambda at: task.key.trigger_at < at,
    }
    return all(checks[name](value) for name, value in filters.items())
