"""Many calls to one endpoint that closes connections, from the store to the record."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from callme.caller.call import HttpCaller
from callme.core.callback_url import host_of
from callme.core.task import State, Task
from callme.core.transitions import PutCondition
from callme.store import tasks
from callme.store.changes import Changes
from callme.worker.dispatcher import Dispatcher
from callme.worker.slots import Slots
from tests.helpers.endpoint import OK, Connection, Endpoint, listen, shut
from tests.helpers.instant_store import InstantStore
from tests.helpers.tasks import NOON, definition

TASKS = 600


@pytest_twisted.async_yield_fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    made.port = listen(made)
    yield made
    await shut(made)


async def call_all(endpoint: Endpoint, retry: int) -> list[Task]:
    """Return the tasks that were all due at noon, after all have ended."""
    began = time.monotonic()

    def now() -> float:
        return NOON + time.monotonic() - began

    store = InstantStore()
    caller = HttpCaller(reactor, now, 64)
    dispatcher = Dispatcher(
        store=store,
        caller=caller,
        clock=reactor,
        now=now,
        slots=Slots(concurrency=256, per_host=64),
        on_claim_failure=lambda failure: None,
    )
    keys = []
    for number in range(TASKS):
        made = definition(f"task{number}", callback=endpoint.url(), retry=retry, max_delay=10)
        await store.write(tasks.put, made, PutCondition.NONE, NOON)
        keys.append(made.key)
    running = set(keys)
    all_ended: Deferred[None] = Deferred()

    def remove_ended(changes: Changes) -> None:
        for change in changes.transitions:
            if change.transition.state is not State.SCHEDULED:
                running.remove(change.key)
        if not running and not all_ended.called:
            all_ended.callback(None)

    store.changes.subscribe(dispatcher.on_changes)
    store.changes.subscribe(remove_ended)
    dispatcher.open()
    dispatcher.notify_due([host_of(endpoint.url())])
    # A bound for a test that fails: no call waits for it.
    all_ended.addTimeout(60, reactor)
    await all_ended
    ended = [task for key in keys if (task := await store.read(tasks.get, key))]
    await caller.close()
    store.close()
    return ended


@pytest.mark.parametrize("retry", [0, 1])
async def test_endpoint_that_closes_each_connection_unannounced_loses_no_task(
    endpoint: Endpoint, retry: int
) -> None:
    """An attempt may meet a stale connection; the next one follows at once."""

    def reply(connection: Connection) -> None:
        connection.write(OK)
        reactor.callLater(0.002, connection.hang_up)

    endpoint.answer = reply
    ended = await call_all(endpoint, retry)
    assert len(ended) == TASKS
    assert {task.state for task in ended} == {State.SUCCEEDED}
    attempts = [attempt for task in ended for attempt in task.attempts or ()]
    assert max(attempt.lateness_ms for attempt in attempts) < 10_000
    assert all(len(task.attempts or ()) <= 1 + retry for task in ended)
    # No endpoint got a task twice: what failed had not been read.
    assert len(endpoint.requests) == TASKS


async def test_well_behaved_endpoint_gets_each_task_once_over_few_connections(
    endpoint: Endpoint,
) -> None:
    ended = await call_all(endpoint, 1)
    assert {task.state for task in ended} == {State.SUCCEEDED}
    assert all(len(task.attempts or ()) == 1 for task in ended)
    assert len(endpoint.requests) == TASKS
    assert len(endpoint.connections) <= 64
