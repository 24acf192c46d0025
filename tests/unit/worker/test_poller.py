"""The poller: changes by other daemons between two ticks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred

from callme.core.task import Reason, State
from callme.core.times import Key
from callme.store import queue
from callme.store.interface import HEARTBEAT_SECONDS
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON
from tests.helpers.world import World

HOST = "sink.example:80"


@pytest.fixture
def shared() -> Iterator[World]:
    """A daemon that polls every half second for work of its peers."""
    world = World(is_shared=True)
    world.scheduler.start()
    world.turn_to(NOON + 10)
    yield world
    world.close()


def test_task_put_by_another_daemon_is_called_before_the_next_tick(shared: World) -> None:
    shared.put()
    shared.turn_to(NOON + 10.6)
    assert [at for at, _ in shared.caller.calls] == [NOON + 10.5]


def test_orphan_of_another_daemon_is_rescued_before_the_next_tick(shared: World) -> None:
    shared.put(timeout=5, retry=0)
    # Another daemon claims it and dies; its lease ends after 65 s.
    shared.result(shared.store.write(queue.claim, {HOST: 1}, NOON + 10))
    shared.turn_to(NOON + 75 + HEARTBEAT_SECONDS + 1)
    task = shared.task(Key("task", NOON))
    assert (task.state, task.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert task.finished_at_ms is not None
    assert task.finished_at_ms / 1000 < NOON + 75 + HEARTBEAT_SECONDS + 1


def test_poll_resumes_after_a_database_outage(shared: World) -> None:
    shared.put()
    shared.store.is_broken = True
    shared.turn_to(NOON + 30)
    assert shared.caller.called == []
    shared.store.is_broken = False
    shared.turn_to(NOON + 30.6)
    assert shared.caller.called == [f"task@{NOON}"]


def test_internal_error_does_not_end_polling(
    shared: World, logged_failures: LoggedFailures
) -> None:
    shared.store.overrides[queue.hosts_with_due_tasks] = lambda now: 1 / 0
    shared.turn_to(NOON + 12)
    assert logged_failures.flush(ZeroDivisionError) == 4
    del shared.store.overrides[queue.hosts_with_due_tasks]
    shared.put()
    shared.turn_to(NOON + 13)
    assert shared.caller.called == [f"task@{NOON}"]


def test_polling_ends_with_the_scheduler(shared: World) -> None:
    shared.result(Deferred.fromCoroutine(shared.scheduler.stop(0, 0)))
    assert shared.clock.getDelayedCalls() == []
