"""Steps that bring the tasks of any store into the state that a test needs."""

from __future__ import annotations

from typing import Any

from callme.core.task import Claim, Outcome, State
from callme.core.times import Key
from callme.core.transitions import decide_after_attempt
from callme.store.interface import (
    Put,
    Store,
)
from tests.helpers.tasks import NOON, definition

HOST = "sink.example:80"
NOW = NOON + 0.5


async def put(store: Store, name: str = "task", at: int = NOON, **more: Any) -> Key:
    made = definition(name, at, **more)
    assert Put.CREATED is (await store.put(made, NOW)).put
    return made.key


async def claim_all(store: Store, count: int = 1000, now: float = NOW) -> list[Claim]:
    return list(await store.claim({HOST: count}, now))


async def finish(store: Store, claim: Claim, status: int, now: float = NOW) -> bool:
    outcome = Outcome(started_at_ms=int(now * 1000), duration_ms=5, status=status, body="b")
    return await store.record(claim, decide_after_attempt(claim, outcome, now), now)


async def put_in(store: Store, state: State, name: str = "task", at: int = NOON) -> Key:
    """Put a task and bring it into a state; return its key."""
    key = await put(store, name, at, retry=0)
    if state is not State.SCHEDULED:
        claims = [c for c in await claim_all(store, now=at) if c.definition.key == key]
        if state is not State.RUNNING:
            await finish(store, claims[0], 200 if state is State.SUCCEEDED else 500, now=at)
    return key


async def state_of(store: Store, key: Key) -> State | None:
    task = await store.get(key)
    return None if task is None else task.state
