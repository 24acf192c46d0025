"""The poller: changes by other daemons between two ticks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from callme.core.task import Reason, State
from callme.core.times import Key
from callme.hosts.operations import SettingsSnapshot, load_settings
from callme.hosts.settings import HostSettings
from callme.store import queue
from callme.store.interface import HEARTBEAT_SECONDS
from callme.worker.poller import CLAIM_SECONDS
from callme.worker.recorder import RETRY_SECONDS
from callme.worker.scheduler import MAX_SETTINGS_AGE_SECONDS
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


def test_heartbeat_is_sent_as_soon_as_the_database_is_back(shared: World) -> None:
    """Its peers may soon count this daemon as dead."""
    sent: list[float] = []

    def take_orphans(now: float) -> Deferred[Any]:
        sent.append(now)
        return shared.store.run(queue.take_orphans, now)  # type: ignore[no-any-return]

    shared.turn_to(NOON + 10 + HEARTBEAT_SECONDS)
    shared.store.overrides[queue.take_orphans] = take_orphans
    shared.store.is_broken = True
    shared.turn_to(shared.now() + 1)
    shared.store.is_broken = False
    back = shared.now()
    sent.clear()
    shared.turn_to(back + 0.6)
    assert sent == [back + 0.5]
    # After that, the interval is the usual one.
    shared.turn_to(back + HEARTBEAT_SECONDS)
    assert sent == [back + 0.5]
    shared.turn_to(back + HEARTBEAT_SECONDS + 0.6)
    assert len(sent) == 2


def test_due_tasks_are_found_although_the_longest_due_are_of_a_paused_host(shared: World) -> None:
    """PostgreSQL reads only the longest due tasks, which may all be of paused hosts."""
    paused = HostSettings(host="paused.example:80", paused_at=NOON, paused_until=NOON + 600)
    snapshot = SettingsSnapshot(settings=[paused])
    shared.store.overrides[load_settings] = lambda node: succeed(snapshot)
    shared.store.overrides[queue.hosts_with_due_tasks] = lambda now: succeed([paused.host])
    shared.put()
    shared.turn_to(NOON + 10.6)
    assert shared.caller.called == [f"task@{NOON}"]


def test_poller_that_never_started_can_be_stopped() -> None:
    world = World(is_shared=True)
    world.result(Deferred.fromCoroutine(world.scheduler.stop(0, 0)))
    world.close()


def test_outage_that_begins_before_the_first_poll_is_logged() -> None:
    world = World(is_shared=True)
    world.scheduler.start()
    world.store.is_broken = True
    with capturedLogs() as events:
        world.turn_to(NOON + 1.1)
    lines = [formatEvent(event) or "" for event in events]
    assert [line.partition(":")[0] for line in lines] == ["polling for due tasks failed"]
    world.close()


def test_each_outage_is_logged_once(shared: World) -> None:
    with capturedLogs() as events:
        for _ in range(2):
            shared.store.is_broken = True
            shared.turn_to(shared.now() + 3)
            shared.store.is_broken = False
            shared.turn_to(shared.now() + 3)
    lines = [formatEvent(event) or "" for event in events]
    assert sum(line.startswith("polling for due tasks failed") for line in lines) == 2


def delay_next_claim(world: World) -> Deferred[Any]:
    """Have the next claim committed at once, and its result when the returned Deferred fires."""
    result: Deferred[Any] = Deferred()

    def claim(*args: Any) -> Deferred[Any]:
        del world.store.overrides[queue.claim]
        claims = world.result(world.store.run(queue.claim, *args))
        return result.addCallback(lambda _: claims)

    world.store.overrides[queue.claim] = claim
    return result


def test_claim_of_a_daemon_that_was_frozen_during_it_is_returned(shared: World) -> None:
    """Its peers may have declared it dead, and may be making the call."""
    key = shared.put().key
    result = delay_next_claim(shared)
    shared.turn_to(NOON + 10.6)
    assert shared.task(key).state is State.RUNNING
    # None of the timers of a frozen process fires.
    shared.clock.rightNow += CLAIM_SECONDS
    shared.store.is_broken = True
    result.callback(None)
    assert shared.caller.called == []
    shared.store.is_broken = False
    shared.turn_to(shared.now() + RETRY_SECONDS)
    assert shared.caller.called == [f"task@{NOON}"]
    assert shared.task(key).attempts_used == 1


def test_daemon_that_was_frozen_reads_the_settings_of_hosts_before_it_claims(
    shared: World,
) -> None:
    """Another daemon may have paused a host in the meantime."""
    paused = HostSettings(host=HOST, paused_at=NOON, paused_until=NOON + 30)
    shared.store.overrides[load_settings] = lambda *_: succeed(SettingsSnapshot(settings=[paused]))
    # None of the timers of a frozen process fires.
    shared.clock.rightNow += MAX_SETTINGS_AGE_SECONDS
    shared.put()
    shared.scheduler.tick()
    assert shared.caller.called == []
    shared.turn_to(NOON + 29)
    assert shared.caller.called == []
    shared.turn_to(NOON + 31)
    assert shared.caller.called == [f"task@{NOON}"]


def test_slow_claim_of_a_daemon_that_sends_heartbeats_is_called(shared: World) -> None:
    shared.put()
    result = delay_next_claim(shared)
    shared.turn_to(NOON + 10.6 + CLAIM_SECONDS)
    result.callback(None)
    assert shared.caller.called == [f"task@{NOON}"]
