"""Steps that bring the tasks of any store into the state that a test needs."""

from __future__ import annotations

from typing import Any

from callme.core.task import Claim, Outcome, State
from callme.core.times import Key
from callme.core.transitions import PutCondition, PutOutcome, decide_after_attempt
from callme.store import queue, tasks
from callme.store.changes import Changes
from callme.store.database import Store
from tests.helpers.tasks import NOON, definition

HOST = "sink.example:80"
NOW = NOON + 0.5


def record_changes(store: Store) -> list[Changes]:
    """Return a list to which the changes of every commit are added."""
    published: list[Changes] = []
    store.changes.subscribe(published.append)
    return published


async def put(store: Store, name: str = "task", at: int = NOON, **more: Any) -> Key:
    made = definition(name, at, **more)
    # A task that is too late now must have been put before that.
    now = min(NOW, made.expires_at - 1)
    result = await store.write(tasks.put, made, PutCondition.NONE, now)
    assert PutOutcome.CREATED is result.outcome
    return made.key


async def claim_all(store: Store, count: int = 1000, now: float = NOW) -> list[Claim]:
    return list(await store.write(queue.claim, {HOST: count}, now))


async def finish(store: Store, claim: Claim, status: int, now: float = NOW) -> bool:
    outcome = Outcome(started_at_ms=int(now * 1000), duration_ms=5, status=status, body="b")
    return await store.write(queue.record, claim, decide_after_attempt(claim, outcome, now), now)


async def put_in(store: Store, state: State, name: str = "task", at: int = NOON) -> Key:
    """Put a task and bring it into a state; return its key."""
    key = await put(store, name, at, retry=0)
    if state is not State.SCHEDULED:
        claims = [c for c in await claim_all(store, now=at) if c.definition.key == key]
        if state is not State.RUNNING:
            await finish(store, claims[0], 200 if state is State.SUCCEEDED else 500, now=at)
    return key


async def state_of(store: Store, key: Key) -> State | None:
    task = await store.read(tasks.get, key)
    return None if task is None else task.state
