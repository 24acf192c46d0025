"""The poller: changes by other daemons between two ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent

from callme.core.task import Outcome, Reason, State
from callme.core.times import Key
from callme.core.transitions import decide_after_attempt
from callme.hosts.operations import SettingsSnapshot, load_settings
from callme.hosts.settings import HostSettings
from callme.store import queue
from callme.store.interface import HEARTBEAT_SECONDS, StoreUnavailable
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


def record_claims(world: World) -> list[float]:
    """Return a list that receives the time of each claim from now on."""
    claims: list[float] = []

    def claim(*args: Any) -> Deferred[Any]:
        claims.append(world.now())
        return world.store.run(queue.claim, *args)  # type: ignore[no-any-return]

    world.store.overrides[queue.claim] = claim
    return claims


def assert_claim_is_returned(world: World, result: Deferred[Any], key: Key) -> None:
    """Let a claim end while the store is broken; the call is made when the store works again."""
    world.store.is_broken = True
    result.callback(None)
    assert world.caller.called == []
    world.store.is_broken = False
    world.turn_to(world.now() + RETRY_SECONDS)
    assert world.caller.called == [str(key)]
    assert world.task(key).attempts_used == 1


def test_claim_of_a_daemon_that_was_frozen_during_it_is_returned(shared: World) -> None:
    """Its peers may have declared it dead, and may be making the call."""
    key = shared.put().key
    result = delay_next_claim(shared)
    shared.turn_to(NOON + 10.6)
    assert shared.task(key).state is State.RUNNING
    # None of the timers of a frozen process fires.
    shared.clock.rightNow += CLAIM_SECONDS
    assert_claim_is_returned(shared, result, key)


@frozen
class Sleeper:
    """A daemon of a fleet whose process or machine may stop for a while.

    :ivar sleep: lets some seconds pass without a timer.
    """

    world: World
    sleep: Callable[[float], None]

    def live(self, seconds: float) -> None:
        """Let some seconds pass with all timers."""
        self.world.turn_to(self.world.clock.seconds() + seconds)


@pytest.fixture(params=["frozen", "suspended"])
def sleeper(request: pytest.FixtureRequest) -> Iterator[Sleeper]:
    """The monotonic clock goes on in a frozen process, and stops on a suspended machine."""
    offset = [0.0]
    world = World()
    world.now = world.caller.now = lambda: world.clock.seconds() + offset[0]
    world.build(is_shared=True)
    world.caller.status = None

    def sleep(seconds: float) -> None:
        if request.param == "suspended":
            offset[0] += seconds
        else:
            world.clock.rightNow += seconds

    world.scheduler.start()
    one = Sleeper(world, sleep)
    one.live(10)
    yield one
    world.close()


def test_call_that_connects_while_its_daemon_sleeps_is_returned(sleeper: Sleeper) -> None:
    """Its peers may have taken the claim over, and made the call."""
    world, key = sleeper.world, sleeper.world.put(retry=0).key
    sleeper.live(1)
    with capturedLogs() as events:
        sleeper.sleep(CLAIM_SECONDS)
        assert not world.caller.connect(key)
    lines = [formatEvent(event) or "" for event in events]
    (line,) = [line for line in lines if "is returned without a request" in line]
    assert line.startswith(f'"task@{NOON}" attempt 1')
    assert world.scheduler.health().calls_in_flight == 0
    assert world.scheduler.host_results == {}
    sleeper.live(1)
    assert world.caller.called == [f"task@{NOON}"] * 2
    assert world.caller.connect(key)
    world.caller.end(key, 200)
    task = world.task(key)
    assert (task.state, task.attempts_used) == (State.SUCCEEDED, 1)


def test_call_that_connects_is_returned_though_a_heartbeat_follows_the_sleep(
    sleeper: Sleeper,
) -> None:
    """With it, the daemon is a member again, but a claim that was taken over is lost."""
    world, key = sleeper.world, sleeper.world.put().key
    sleeper.live(1)
    sleeper.sleep(CLAIM_SECONDS)
    sleeper.live(1)
    assert not world.caller.connect(key)
    sleeper.live(1)
    assert world.caller.connect(key)


def test_call_that_connects_during_a_short_sleep_is_made(sleeper: Sleeper) -> None:
    key = sleeper.world.put().key
    sleeper.live(1)
    sleeper.sleep(CLAIM_SECONDS - HEARTBEAT_SECONDS - 1)
    assert sleeper.world.caller.connect(key)


def test_call_that_a_peer_has_taken_over_is_not_made(sleeper: Sleeper) -> None:
    world, key = sleeper.world, sleeper.world.put(retry=0).key
    sleeper.live(1)
    sleeper.sleep(CLAIM_SECONDS)
    (_, claim) = world.caller.calls[0]
    interrupted = Outcome(started_at_ms=NOON * 1000, reason=Reason.INTERRUPTED, detail="gone")
    taken = decide_after_attempt(claim, interrupted, world.now())
    world.result(world.store.elsewhere(queue.record, claim, taken, world.now()))
    assert not world.caller.connect(key)
    sleeper.live(10)
    assert world.caller.called == [f"task@{NOON}"]
    assert world.task(key).reason is Reason.INTERRUPTED


def test_daemon_that_slept_sends_a_heartbeat_at_its_next_poll(sleeper: Sleeper) -> None:
    world = sleeper.world
    sent: list[float] = []

    def take_orphans(now: float) -> Deferred[Any]:
        sent.append(now)
        return world.store.run(queue.take_orphans, now)  # type: ignore[no-any-return]

    sleeper.live(HEARTBEAT_SECONDS)
    world.store.overrides[queue.take_orphans] = take_orphans
    sleeper.sleep(HEARTBEAT_SECONDS)
    sleeper.live(0.6)
    assert len(sent) == 1


def test_daemon_whose_heartbeats_alone_fail_claims_nothing(shared: World) -> None:
    """It would have to return what it claims."""
    shared.store.overrides[queue.take_orphans] = lambda *_, **__: fail(StoreUnavailable("no"))
    shared.turn_to(shared.now() + CLAIM_SECONDS)
    claims = record_claims(shared)
    shared.put()
    shared.turn_to(shared.now() + 5)
    assert claims == []
    del shared.store.overrides[queue.take_orphans]
    shared.turn_to(shared.now() + 0.5)
    assert shared.caller.called == [f"task@{NOON}"]


def test_daemon_whose_heartbeat_took_long_claims_after_the_next_one(shared: World) -> None:
    """It would return what it claims, and claim it again, until then."""
    slow: Deferred[Any] = Deferred()
    shared.store.overrides[queue.take_orphans] = lambda *_, **__: slow
    shared.turn_to(shared.now() + HEARTBEAT_SECONDS + CLAIM_SECONDS)
    del shared.store.overrides[queue.take_orphans]
    claims = record_claims(shared)
    shared.put()
    slow.callback([])
    assert claims == []
    shared.turn_to(shared.now() + 0.6)
    assert shared.caller.called == [f"task@{NOON}"]
    assert len(claims) == 1


def test_daemon_that_slept_reads_the_settings_of_hosts_before_it_claims(
    sleeper: Sleeper,
) -> None:
    """Another daemon may have paused a host in the meantime."""
    world = sleeper.world
    until = int(world.now()) + 30
    paused = HostSettings(host=HOST, paused_at=NOON, paused_until=until)
    world.store.overrides[load_settings] = lambda *_: succeed(SettingsSnapshot(settings=[paused]))
    # None of the timers of a frozen process fires.
    sleeper.sleep(MAX_SETTINGS_AGE_SECONDS)
    world.put()
    world.scheduler.tick()
    assert world.caller.called == []
    sleeper.live(until - 1 - world.now())
    assert world.caller.called == []
    sleeper.live(2)
    assert world.caller.called == [f"task@{NOON}"]


def test_claim_of_a_daemon_that_was_frozen_is_returned_though_a_heartbeat_comes_first(
    shared: World,
) -> None:
    """The heartbeat makes it a member again, after its peers may have taken the claim."""
    key = shared.put().key
    result = delay_next_claim(shared)
    shared.turn_to(NOON + 10.6)
    shared.clock.rightNow += CLAIM_SECONDS
    shared.turn_to(shared.now() + 0.6)
    assert_claim_is_returned(shared, result, key)


def test_slow_claim_of_a_daemon_that_sends_heartbeats_is_called(shared: World) -> None:
    shared.put()
    result = delay_next_claim(shared)
    shared.turn_to(NOON + 10.6 + CLAIM_SECONDS)
    result.callback(None)
    assert shared.caller.called == [f"task@{NOON}"]
