"""The scheduler on a simulated clock, with the real SQL statements and fake calls."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent

from callme.core.task import Outcome, Reason, State
from callme.core.times import Key
from callme.hosts.operations import SettingsSnapshot, load_settings
from callme.store import queue, tasks
from callme.store.changes import Changes
from callme.store.interface import StoreUnavailable
from callme.worker import host_memory
from callme.worker.recorder import RETRY_SECONDS
from callme.worker.scheduler import TICK_TIMEOUT_SECONDS
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON
from tests.helpers.world import World

TASK = Key("task", NOON)


def started(**settings: Any) -> World:
    world = World(**settings)
    world.scheduler.start()
    return world


def stop(world: World, grace: float = 10, then: float = 2) -> Deferred[None]:
    return Deferred.fromCoroutine(world.scheduler.stop(grace, then))


def test_task_is_called_at_its_minute_and_not_before(world: World) -> None:
    world.put(at=NOON + 120)
    world.scheduler.start()
    world.turn_to(NOON + 119.999)
    assert world.caller.called == []
    world.turn_to(NOON + 120)
    assert world.caller.called == [f"task@{NOON + 120}"]
    task = world.task(Key("task", NOON + 120))
    assert task.state is State.SUCCEEDED
    assert [attempt.lateness_ms for attempt in task.attempts or ()] == [0]


@pytest.mark.parametrize("offset", [0.0, 0.001, 17.3, 59.999])
def test_ticks_are_aligned_with_the_minute(offset: float) -> None:
    world = World()
    world.clock.advance(offset)
    world.scheduler.start()
    for minute in range(1, 200):
        world.put(f"n{minute}", NOON + 60 * minute)
    world.turn_to(NOON + 60 * 200)
    assert len(world.caller.calls) == 199
    assert all(time % 60 < 0.001 for time, _ in world.caller.calls)
    world.close()


def test_ticks_follow_a_wall_clock_that_drifts() -> None:
    """Timers do not use the wall clock, so every minute is aligned again."""
    world = World()
    world.now = lambda: NOON + (world.clock.seconds() - NOON) * 1.01
    world.caller.now = world.now
    world.build()
    for minute in range(1, 100):
        world.put(f"n{minute}", NOON + 60 * minute)
    world.scheduler.start()
    world.turn_to(NOON + 60 * 100)
    assert len(world.caller.calls) == 99
    for time, claim in world.caller.calls:
        assert 0 <= time - claim.definition.trigger_at < 0.7
    world.close()


@pytest.mark.parametrize("forth", [False, True])
@pytest.mark.parametrize("step", [queue.take_orphans, queue.expire_overdue, queue.claim])
def test_clock_step_back_during_a_tick_skips_no_minute(step: Any, forth: bool) -> None:
    """A tick may begin in a minute and query the tasks due before it."""
    world = World()
    ahead = 0.0
    world.now = lambda: world.clock.seconds() + ahead
    world.caller.now = world.now
    world.build()
    world.scheduler.start()
    world.put(at=NOON + 60)
    world.turn_to(NOON + 59)
    before = partial(world.store.run, step)

    def set_back(*args: Any, **named: Any) -> Any:
        nonlocal ahead
        done = before(*args, **named)
        if ahead == 0.0:
            ahead = -0.8
            world.clock.callLater(1, set_forth)
        return done

    def set_forth() -> None:
        nonlocal ahead
        ahead = 0.001 if forth else ahead

    world.store.overrides[step] = set_back
    world.turn_to(NOON + 67)
    assert [time - NOON for time, _ in world.caller.calls] == [pytest.approx(65 + ahead)]
    world.close()


def test_missed_tasks_are_called_late_or_fail_as_too_late(world: World) -> None:
    world.put("fine", NOON - 540, max_delay=10)
    world.put("late", NOON - 600, max_delay=10)
    world.scheduler.start()
    assert world.caller.called == [f"fine@{NOON - 540}"]
    late = world.task(Key("late", NOON - 600))
    assert (late.state, late.reason) == (State.FAILED, Reason.TOO_LATE)


def test_many_expired_tasks_all_fail(world: World) -> None:
    for number in range(2500):
        world.put(f"n{number}", NOON - 600, max_delay=1)
    world.put("fine")
    world.scheduler.start()
    assert world.caller.called == [f"fine@{NOON}"]
    page = world.result(world.store.read(tasks.list_page, state=State.SCHEDULED, limit=10))
    assert list(page.tasks) == []


def test_tick_does_not_wait_for_calls() -> None:
    world = started()
    world.caller.status = None
    for minute in (1, 2, 3):
        world.put(f"n{minute}", NOON + 60 * minute)
    world.turn_to(NOON + 180)
    assert [time for time, _ in world.caller.calls] == [NOON + 60, NOON + 120, NOON + 180]
    assert world.scheduler.health().calls_in_flight == 3
    world.close()


def test_claims_do_not_exceed_free_slots() -> None:
    world = World(concurrency=10, per_host=4)
    world.caller.status = None
    for number in range(20):
        world.put(f"a{number:02d}")
        world.put(f"b{number:02d}", callback="http://other.example/")
    world.scheduler.start()
    assert [name[:3] for name in world.caller.called] == [
        *("a00", "b00", "a01", "b01", "a02", "b02", "a03", "b03")
    ]
    running = world.result(world.store.read(tasks.list_page, state=State.RUNNING))
    assert len(running.tasks) == 8
    world.caller.end(Key("a01", NOON), 200)
    assert world.caller.called[-1] == f"a04@{NOON}"
    world.close()


def test_hanging_hosts_do_not_block_others() -> None:
    world = World(concurrency=20, per_host=8)
    world.caller.status = None
    for number in range(100):
        world.put(f"hang{number}", NOON - 60, callback="http://hang.example/")
    for number in range(100):
        world.put(f"good{number:03d}")
    world.scheduler.start()
    while any(key.task_name.startswith("good") for key in world.caller.pending):
        good = next(key for key in world.caller.pending if key.task_name.startswith("good"))
        world.caller.end(good, 200)
    called = [key for key in world.caller.called if key.startswith("good")]
    assert called == [f"good{number:03d}@{NOON}" for number in range(100)]
    assert len(world.caller.pending) == 8
    world.close()


def test_many_hanging_hosts_leave_slots_for_a_responsive_one() -> None:
    """For example if the lookups of a hundred names hang: each has few calls in flight."""
    world = World()
    world.caller.status = None
    for number in range(1000):
        world.put(f"hang{number:03d}", callback=f"http://hang{number % 100}.example/")
    for number in range(1000):
        world.put(f"good{number:03d}")
    world.scheduler.start()
    first = [key for key in world.caller.pending if key.task_name.startswith("good")]
    world.caller.end(first[0], 200)
    good = [key for key in world.caller.pending if key.task_name.startswith("good")]
    assert len(good) == 8, "one response is not enough for more than few calls"
    for _ in range(40):
        world.caller.end(good.pop(), 200)
        good = [key for key in world.caller.pending if key.task_name.startswith("good")]
    assert len(good) == 64, "as many as there may be to one host"
    while good:
        world.caller.end(good.pop(), 200)
        good = good or [key for key in world.caller.pending if key.task_name.startswith("good")]
    assert len([key for key in world.caller.called if key.startswith("good")]) == 1000
    world.close()


def test_responsive_host_does_not_wait_for_thousands_that_hang() -> None:
    world = World()
    world.put("good")
    world.scheduler.start()
    world.caller.status = None
    for number in range(1000):
        world.put(f"a{number:03d}", NOON + 60, callback=f"http://hang{number}.example/")
    world.put("good", NOON + 60)
    world.turn_to(NOON + 60)
    assert world.caller.called[-1] == f"good@{NOON + 60}"
    world.caller.pending.pop(Key("good", NOON + 60)).callback(
        Outcome(started_at_ms=0, reason=Reason.CONNECTION_FAILED, detail="no such host")
    )
    # After hanging like the others, it waits for its turn as they do.
    for number in range(1000):
        world.put(f"b{number:03d}", NOON + 120, callback=f"http://hung{number}.example/")
    world.put("good", NOON + 120)
    world.turn_to(NOON + 120)
    assert f"good@{NOON + 120}" not in world.caller.called
    world.close()


def test_latest_responsive_hosts_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(host_memory, "MAX_TRACKED_HOSTS", 1)
    world = World()
    world.put("old", callback="http://old.example/")
    world.put("good")
    world.scheduler.start()
    world.caller.status = None
    for number in range(1000):
        world.put(f"a{number:03d}", NOON + 60, callback=f"http://hang{number}.example/")
    world.put("old", NOON + 60, callback="http://old.example/")
    world.put("good", NOON + 60)
    world.turn_to(NOON + 60)
    assert world.caller.called[-1] == f"good@{NOON + 60}"
    assert f"old@{NOON + 60}" not in world.caller.called
    world.close()


def test_attempts_without_delay_slow_down_between_two_ticks() -> None:
    world = World()
    world.caller.status = 500
    world.put(retry=1000, retry_delay=[0])
    world.put("other", retry=1000, retry_delay=[0])
    world.scheduler.start()
    world.turn_to(NOON + 30)
    times = [time - NOON for time, claim in world.caller.calls if claim.definition.key == TASK]
    # After the tenth attempt, the next waits 1 s, and each a second longer than the one before.
    assert times == [*[0.0] * 10, 1, 3, 6, 10, 15, 21, 28]
    assert len(world.caller.calls) == 2 * len(times)
    stopping = Deferred.fromCoroutine(world.scheduler.stop(0, 0))
    world.turn_to(NOON + 120)
    world.result(stopping)
    assert len(world.caller.calls) == 2 * len(times), "a stopped scheduler makes no calls"
    world.close()


def test_wakeup_between_ticks_waits_for_a_wall_clock_that_was_set_back() -> None:
    world = World()
    world.caller.status = 500
    behind = 0.0
    world.now = lambda: world.clock.seconds() - behind
    world.caller.now = world.now
    world.build()
    world.put(retry=10, retry_delay=[0])
    world.scheduler.start()
    assert len(world.caller.calls) == 10
    behind = 0.5
    world.turn_to(NOON + 1)
    assert len(world.caller.calls) == 10
    world.turn_to(NOON + 2)
    assert len(world.caller.calls) == 11
    world.close()


def test_health_says_for_how_long_due_calls_have_been_waiting_for_a_slot() -> None:
    world = World(concurrency=2, per_host=2)
    world.caller.status = None
    for host in ("a", "b", "c"):
        world.put(host, callback=f"http://{host}.example/")
    world.scheduler.start()
    world.turn_to(NOON + 50)
    assert world.scheduler.health().saturated_seconds == 50
    for name in ("a", "b"):
        world.caller.end(Key(name, NOON), 200)
    assert world.scheduler.health().saturated_seconds == 0
    world.close()


def test_host_at_its_own_limit_does_not_count_as_saturation() -> None:
    world = World(concurrency=10, per_host=2)
    world.caller.status = None
    for number in range(3):
        world.put(f"n{number}")
    world.scheduler.start()
    world.turn_to(NOON + 50)
    assert world.scheduler.health().saturated_seconds == 0
    world.close()


def test_hosts_beyond_the_slots_are_served_in_turn() -> None:
    world = World(concurrency=3, per_host=2)
    world.caller.status = None
    for number in range(30):
        world.put(f"{number % 10}-{number // 10}", callback=f"http://h{number % 10}.example/")
    world.scheduler.start()
    while world.caller.pending:
        world.caller.end(next(iter(world.caller.pending)), 200)
    hosts = [name.partition("-")[0] for name in world.caller.called]
    assert len(hosts) == 30
    assert set(hosts[:10]) == set(map(str, range(10)))
    world.close()


def test_due_task_is_called_when_it_is_put(world: World) -> None:
    world.scheduler.start()
    world.turn_to(NOON + 30)
    world.put()
    world.notify_due("sink.example:80")
    assert [(NOON + 30, f"task@{NOON}")] == [
        (time, str(claim.definition.key)) for time, claim in world.caller.calls
    ]


@pytest.mark.parametrize(("retry", "calls"), [(0, 1), (1, 2), (3, 4)])
def test_failing_task_is_called_as_often_as_retry_allows(retry: int, calls: int) -> None:
    world = started()
    world.caller.status = 500
    world.put(retry=retry)
    world.scheduler.tick()
    world.turn_to(NOON + 3600)
    assert [NOON + 60 * n for n in range(calls)] == [time for time, _ in world.caller.calls]
    task = world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    assert list(range(1, calls + 1)) == [attempt.number for attempt in task.attempts or ()]
    assert [60_000 * n for n in range(calls)] == [a.lateness_ms for a in task.attempts or ()]
    world.close()


def test_retry_without_delay_is_made_at_once(world: World) -> None:
    world.caller.status = 500
    world.put(retry=3, retry_delay=0)
    world.scheduler.start()
    assert len(world.caller.calls) == 4
    assert world.task(TASK).state is State.FAILED


def test_retry_that_waits_too_long_for_a_slot_expires() -> None:
    world = World(concurrency=1)
    world.caller.status = None
    world.put("hang", NOON - 60)
    world.put("waits", max_delay=2)
    world.scheduler.start()
    world.turn_to(NOON + 300)
    assert world.caller.called == [f"hang@{NOON - 60}"]
    waits = world.task(Key("waits", NOON))
    assert (waits.state, waits.reason) == (State.FAILED, Reason.TOO_LATE)
    assert waits.finished_at_ms == (NOON + 120) * 1000
    world.close()


def test_clock_step_back_after_claim_makes_no_early_call(world: World) -> None:
    world.put()
    times = iter([NOON, NOON, NOON, NOON, NOON, NOON - 30.0])
    world.scheduler._wall = lambda: next(times, NOON - 30.0)
    world.scheduler.start()
    assert world.caller.calls == []
    task = world.task(TASK)
    assert (task.state, task.due_at, task.attempts_used) == (State.SCHEDULED, NOON, 0)


def test_delay_between_claim_and_call_makes_no_late_call(world: World) -> None:
    world.put(max_delay=1)
    world.scheduler.start()
    world.put("other", max_delay=1)
    claims = world.result(world.store.write(queue.claim, {"sink.example:80": 1}, NOON))
    world.turn_to(NOON + 60)
    calls = len(world.caller.calls)
    world.scheduler._dispatcher._launch(claims[0], lambda: True)
    assert len(world.caller.calls) == calls
    task = world.task(Key("other", NOON))
    assert (task.state, task.reason, task.attempts_used) == (State.FAILED, Reason.TOO_LATE, 0)


def test_locked_database_delays_a_tick_by_seconds(world: World) -> None:
    world.scheduler.start()
    world.put(at=NOON + 60)
    world.store.is_broken = True
    world.turn_to(NOON + 61)
    world.store.is_broken = False
    assert world.caller.calls == []
    world.turn_to(NOON + 60 + 2 * RETRY_SECONDS)
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_minute_that_begins_during_a_tick_is_not_missed(world: World) -> None:
    world.scheduler.start()
    due = partial(world.store.run, queue.expire_overdue)
    waiting: list[Deferred[Any]] = []

    def slow(now: float) -> Deferred[Any]:
        found = due(now)
        waiting.append(Deferred())
        return waiting[-1].addCallback(lambda _: found)

    world.put(at=NOON + 60)
    world.clock.advance(59.9)
    world.store.overrides[queue.expire_overdue] = slow
    world.scheduler.tick()
    world.clock.advance(0.1)
    del world.store.overrides[queue.expire_overdue]
    assert world.caller.calls == []
    waiting.pop().callback(None)
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_error_in_a_tick_is_logged_and_ticks_continue(
    world: World, logged_failures: LoggedFailures
) -> None:
    world.scheduler.start()
    world.store.overrides[queue.expire_overdue] = lambda now: 1 / 0
    world.turn_to(NOON + 65)
    assert logged_failures.flush(ZeroDivisionError) >= 2
    del world.store.overrides[queue.expire_overdue]
    world.put(at=NOON + 60)
    world.turn_to(NOON + 70)
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_internal_error_of_the_caller_is_recorded_as_interrupted(
    world: World, logged_failures: LoggedFailures
) -> None:
    world.caller.status = None
    world.put(retry=0)
    world.put("fine")
    world.scheduler.start()
    world.caller.pending.pop(TASK).errback(ZeroDivisionError())
    world.caller.end(Key("fine", NOON), 200)
    assert logged_failures.flush(ZeroDivisionError) == 1
    task = world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert world.task(Key("fine", NOON)).state is State.SUCCEEDED


def test_record_is_retried_until_the_database_is_back(world: World) -> None:
    world.caller.status = None
    world.put()
    world.scheduler.start()
    world.store.is_broken = True
    world.caller.end(TASK, 200)
    world.turn_to(NOON + 300)
    world.store.is_broken = False
    assert world.task(TASK).state is State.RUNNING
    world.turn_to(NOON + 300 + RETRY_SECONDS)
    assert world.task(TASK).state is State.SUCCEEDED
    assert len(world.caller.calls) == 1


def test_claim_with_expired_lease_is_rescued(world: World) -> None:
    """The claim is unknown to this daemon, and its lease has expired."""
    world.scheduler.start()
    world.put(timeout=30)
    world.result(world.store.write(queue.claim, {"sink.example:80": 1}, NOON))
    world.turn_to(NOON + 60)
    assert world.task(TASK).state is State.RUNNING
    world.turn_to(NOON + 120)
    task = world.task(TASK)
    assert task.state is State.SUCCEEDED
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED, None]
    # The next attempt follows at once, not at the next minute.
    assert world.caller.calls[-1][0] == NOON + 120


@pytest.mark.parametrize(
    ("retry", "state", "calls"), [(0, State.FAILED, 1), (1, State.SUCCEEDED, 2)]
)
def test_call_interrupted_by_a_crash_is_retried_within_budget(
    retry: int, state: State, calls: int
) -> None:
    world = World()
    world.caller.status = None
    world.put(retry=retry)
    world.scheduler.start()
    made = len(world.caller.calls)
    world.turn_to(NOON + 5)
    world.caller.status = 200
    world.restart()
    world.turn_to(NOON + 125)
    assert calls == made + len(world.caller.calls)
    task = world.task(TASK)
    assert state is task.state
    assert task.attempts is not None
    assert (task.attempts[0].reason, task.attempts[0].duration_ms) == (Reason.INTERRUPTED, None)
    if state is State.FAILED:
        assert task.reason is Reason.INTERRUPTED
    world.close()


def test_call_interrupted_by_a_crash_is_known_at_the_start_although_its_lease_lasts(
    world: World,
) -> None:
    world.caller.status = None
    world.put(timeout=300)
    world.scheduler.start()
    world.turn_to(NOON + 5)
    world.restart()
    assert [at for at, _ in world.caller.calls] == [NOON + 5]
    attempts = world.task(TASK).attempts or ()
    assert [attempt.reason for attempt in attempts] == [Reason.INTERRUPTED]


def test_crash_loop_does_not_exceed_the_budget() -> None:
    world = World()
    world.caller.status = None
    world.put(retry=3)
    world.scheduler.start()
    calls = len(world.caller.calls)
    for turn in range(1, 20):
        world.turn_to(NOON + 40 * turn)
        world.restart()
        calls += len(world.caller.calls)
        world.caller.calls.clear()
    assert calls <= 4
    task = world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.INTERRUPTED)
    world.close()


def test_stop_waits_for_calls_in_flight(world: World) -> None:
    world.caller.status = None
    world.put()
    world.put("later", NOON + 60)
    world.scheduler.start()
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    world.turn_to(NOON + 9)
    assert stopped == []
    world.caller.end(TASK, 200)
    assert len(stopped) == 1
    assert world.task(TASK).state is State.SUCCEEDED
    world.turn_to(NOON + 120)
    assert world.caller.called == [f"task@{NOON}"]
    assert world.clock.getDelayedCalls() == []


def test_stop_waits_for_each_of_several_calls(world: World) -> None:
    world.caller.status = None
    world.put()
    world.put("slow")
    world.scheduler.start()
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    world.caller.end(TASK, 200)
    assert stopped == []
    world.caller.end(Key("slow", NOON), 200)
    assert len(stopped) == 1


def test_stop_cancels_and_records_calls_after_the_grace_period(world: World) -> None:
    world.caller.status = None
    world.put()
    world.put("once", retry=0)
    world.scheduler.start()
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    world.turn_to(NOON + 10)
    assert len(stopped) == 1
    assert len(world.caller.cancelled) == 2
    task = world.task(TASK)
    assert (task.state, task.due_at, task.attempts_left) == (State.SCHEDULED, NOON, 1)
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED]
    assert world.task(Key("once", NOON)).reason is Reason.INTERRUPTED


def test_stop_returns_claims_that_were_not_called(world: World) -> None:
    world.put()
    claim = partial(world.store.run, queue.claim)
    waiting: Deferred[Any] = Deferred()
    world.store.overrides[queue.claim] = lambda shares, now: waiting
    world.scheduler.start()
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    assert stopped == []
    claim({"sink.example:80": 1}, NOON).addCallback(waiting.callback)
    assert len(stopped) == 1
    assert world.caller.calls == []
    task = world.task(TASK)
    assert (task.state, task.due_at, task.attempts_used) == (State.SCHEDULED, NOON, 0)
    assert task.attempts == ()


@pytest.mark.parametrize("step", [queue.take_orphans, queue.expire_overdue])
def test_tick_during_stop_starts_no_calls(world: World, step: Any) -> None:
    world.put()
    waiting: Deferred[Any] = Deferred()
    world.store.overrides[step] = lambda *args, **kwargs: waiting
    world.scheduler.start()
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    world.store.run(step, NOON).addCallback(waiting.callback)
    assert len(stopped) == 1
    assert world.caller.calls == []
    assert world.task(TASK).state is State.SCHEDULED


def test_tick_writes_nothing_more_after_the_stop(world: World) -> None:
    """The database is about to be closed, and another daemon recovers the orphans."""
    waiting: Deferred[Any] = Deferred()
    scans: list[float] = []
    world.store.overrides[queue.take_orphans] = lambda *_, **__: waiting
    world.store.overrides[queue.expire_overdue] = scans.append
    world.scheduler.start()
    stop(world)
    waiting.callback([])
    assert scans == []


@pytest.mark.parametrize("is_shared", [False, True])
def test_scheduler_can_be_stopped_twice(is_shared: bool) -> None:
    world = World(is_shared=is_shared)
    world.scheduler.start()
    for _ in range(2):
        world.result(stop(world))
    assert world.clock.getDelayedCalls() == []
    world.close()


def test_tick_that_ends_after_the_stop_purges_nothing(world: World) -> None:
    waiting: Deferred[Any] = Deferred()
    purged: list[Any] = []
    world.store.overrides[queue.expire_overdue] = lambda now: waiting

    def purge(*args: Any) -> Deferred[int]:
        purged.append(args)
        return succeed(0)

    world.store.overrides[queue.purge] = purge
    world.scheduler.start()
    stop(world)
    world.store.run(queue.expire_overdue, NOON).addCallback(waiting.callback)
    assert purged == []


def test_refused_record_is_stored_without_response_data(
    world: World, logged_failures: LoggedFailures
) -> None:
    world.caller.status = 2**70
    world.put(retry=0)
    world.scheduler.start()
    assert logged_failures.flush(OverflowError) == 1
    world.turn_to(NOON + RETRY_SECONDS)
    task = world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    assert [attempt.status for attempt in task.attempts or ()] == [None]


@pytest.mark.parametrize("jump", [-3600, 90])
def test_wall_clock_change_is_noticed_within_seconds(jump: int) -> None:
    world = World()
    offset = [0.0]
    world.now = lambda: world.clock.seconds() + offset[0]
    world.caller.now = world.now
    world.build()
    world.scheduler.start()
    world.turn_to(NOON + 20)
    world.put(at=NOON + 60 if jump > 0 else NOON + jump + 60)
    offset[0] = jump
    world.turn_to(NOON + 26 if jump > 0 else NOON + 61)
    assert len(world.caller.calls) == 1
    world.close()


def test_stop_ends_although_nothing_can_be_recorded(world: World) -> None:
    world.caller.status = None
    world.put()
    world.scheduler.start()
    world.store.is_broken = True
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    world.turn_to(NOON + 13)
    assert len(stopped) == 1


def test_scheduler_that_never_started_can_be_stopped(world: World) -> None:
    stopped: list[Any] = []
    stop(world).addCallback(stopped.append)
    assert len(stopped) == 1


def test_health_reports_whether_ticks_happen(world: World) -> None:
    world.scheduler.start()
    world.turn_to(NOON + 600)
    health = world.scheduler.health()
    assert (health.ticking, health.last_tick, health.calls_in_flight) == (True, NOON + 600, 0)
    world.store.is_broken = True
    world.turn_to(NOON + 600 + TICK_TIMEOUT_SECONDS)
    assert not world.scheduler.health().ticking
    assert world.scheduler.health().last_tick == NOON + 600
    world.store.is_broken = False
    world.turn_to(NOON + 720)
    assert world.scheduler.health().ticking


def test_failing_ticks_are_progress(world: World) -> None:
    world.scheduler.start()
    world.store.is_broken = True
    world.turn_to(NOON + 2 * TICK_TIMEOUT_SECONDS)
    assert not world.scheduler.health().ticking
    assert world.scheduler.makes_progress()


def test_tick_that_never_ends_is_no_progress(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.store, "write", lambda *_, **__: Deferred())
    world.scheduler.start()
    world.turn_to(NOON + TICK_TIMEOUT_SECONDS - 1)
    assert world.scheduler.makes_progress()
    # One more, because sums of fractions of seconds may miss the bound.
    world.turn_to(NOON + TICK_TIMEOUT_SECONDS + 1)
    assert not world.scheduler.makes_progress()
    stop(world)
    assert world.scheduler.makes_progress()


def test_finished_tasks_are_purged_after_the_retention_period() -> None:
    world = World(retention=1)
    for number in range(1200):
        world.put(f"n{number}")
    world.put("later", NOON + 2 * 86_400)
    world.scheduler.start()
    world.turn_to(NOON + 60)
    world.jump_to(NOON + 86_400 - 60)
    world.turn_to(NOON + 86_400)
    assert len(world.result(world.store.read(tasks.list_page, limit=1300)).tasks) == 1201
    world.turn_to(NOON + 86_400 + 61)
    assert [t.key.task_name for t in world.result(world.store.read(tasks.list_page)).tasks] == [
        "later"
    ]
    world.close()


def test_failed_purge_is_repeated_at_the_next_minute() -> None:
    world = World(retention=1)
    world.put()
    world.scheduler.start()
    world.turn_to(NOON + 60)
    world.store.overrides[queue.purge] = lambda *args: fail(StoreUnavailable("locked"))
    world.jump_to(NOON + 86_400)
    world.turn_to(NOON + 86_400 + 61)
    assert world.task(TASK).state is State.SUCCEEDED
    del world.store.overrides[queue.purge]
    world.turn_to(NOON + 86_400 + 121)
    assert list(world.result(world.store.read(tasks.list_page)).tasks) == []
    world.close()


def test_error_in_a_purge_is_logged(world: World, logged_failures: LoggedFailures) -> None:
    world.store.overrides[queue.purge] = lambda *args: 1 / 0
    world.scheduler.start()
    assert logged_failures.flush(ZeroDivisionError) == 1


def test_purge_ends_with_the_scheduler() -> None:
    world = World(retention=1)
    for number in range(1200):
        world.put(f"n{number}")
    world.scheduler.start()
    world.turn_to(NOON + 60)
    world.jump_to(NOON + 86_400)
    world.turn_to(NOON + 86_400 + 60)
    stop(world)
    assert world.clock.getDelayedCalls() == []
    world.close()


def test_purge_spares_the_outcomes_of_the_last_day_and_pauses_between_batches() -> None:
    world = World(retention=3)
    purges: list[tuple[float, int, float]] = []

    def purge(*limits: Any) -> Deferred[int]:
        purges.append(limits)
        return succeed(limits[1] if len(purges) < 3 else 0)

    world.store.overrides[queue.purge] = purge
    world.scheduler.start()
    assert [(NOON - before, NOON - outcomes) for before, _, outcomes in purges] == [
        (3 * 86_400, 25 * 3600)
    ]
    world.turn_to(NOON + 0.05)
    assert len(purges) == 1
    world.turn_to(NOON + 0.15)
    assert len(purges) == 2
    world.turn_to(NOON + 10)
    assert len(purges) == 3
    world.close()


def test_purge_in_progress_is_not_begun_again() -> None:
    world = World(retention=3)
    purging: list[Deferred[int]] = []

    def purge(*limits: Any) -> Deferred[int]:
        purging.append(Deferred())
        return purging[-1]

    world.store.overrides[queue.purge] = purge
    world.scheduler.start()
    world.turn_to(NOON + 60)
    assert len(purging) == 1
    purging[0].callback(0)
    world.turn_to(NOON + 120)
    assert len(purging) == 2
    purging[1].callback(0)
    world.close()


def test_retention_zero_keeps_tasks_indefinitely() -> None:
    world = World(retention=0)
    world.put()
    world.scheduler.start()
    world.turn_to(NOON + 86_400)
    assert world.task(TASK).state is State.SUCCEEDED
    world.close()


def test_outcomes_of_removed_tasks_are_deleted_after_a_day_without_a_retention() -> None:
    world = World(retention=0)
    world.put()
    world.scheduler.start()
    world.result(world.store.write(tasks.delete, TASK))
    count = "SELECT count(*) FROM removed_outcome"
    world.turn_to(NOON + 86_400)
    assert world.store.connection.execute(count).fetchone() == (1,)
    world.turn_to(NOON + 26 * 3600)
    assert world.store.connection.execute(count).fetchone() == (0,)
    world.close()


def test_lost_claim_is_logged_and_not_recorded(world: World) -> None:
    world.caller.status = None
    world.put()
    world.scheduler.start()
    world.store.connection.execute("UPDATE task SET last_attempt = last_attempt + 1")
    world.caller.end(TASK, 200)
    assert world.task(TASK).state is State.RUNNING
    assert world.task(TASK).attempts == ()
    assert world.scheduler.health().calls_in_flight == 0


def test_immediate_outcome_frees_its_slot(world: World) -> None:
    for number in range(1000):
        world.put(f"n{number}")
    world.scheduler.start()
    assert len(world.caller.calls) == 1000
    assert world.scheduler.health().calls_in_flight == 0


def test_stop_during_an_outage_leaves_no_timer(world: World) -> None:
    """A tick that failed would otherwise be repeated after the stop."""
    world.store.is_broken = True
    world.scheduler.start()
    stopped = Deferred.fromCoroutine(world.scheduler.stop(0, 0))
    world.result(stopped)
    assert world.clock.getDelayedCalls() == []


def test_tick_that_fails_after_the_stop_is_not_retried(world: World) -> None:
    world.scheduler.start()
    ticking: Deferred[Any] = Deferred()
    world.store.overrides[queue.take_orphans] = lambda *_, **__: ticking
    world.turn_to(NOON + 60)
    Deferred.fromCoroutine(world.scheduler.stop(0, 0))
    ticking.errback(StoreUnavailable("database is locked"))
    assert world.clock.getDelayedCalls() == []


def test_retries_of_ticks_do_not_multiply_during_an_outage(world: World) -> None:
    ticks: list[float] = []

    def take_orphans(now: float, **_: Any) -> Deferred[Any]:
        ticks.append(now)
        return fail(StoreUnavailable("database is locked"))

    world.store.overrides[queue.take_orphans] = take_orphans
    world.scheduler.start()
    world.turn_to(NOON + 300)
    by_minute = Counter(int(at - NOON) // 60 for at in ticks)
    assert by_minute[4] <= by_minute[0] + 1


def test_failure_to_load_changed_settings_is_logged_and_they_are_loaded_soon(
    world: World,
) -> None:
    world.scheduler.start()
    loads: list[float] = []

    def load(node: str) -> Deferred[Any]:
        loads.append(world.now())
        return fail(StoreUnavailable("database is locked"))

    world.store.overrides[load_settings] = load
    with capturedLogs() as events:
        world.store.changes.publish(Changes(changed_hosts={"sink.example:80"}))
    (line,) = [formatEvent(event) or "" for event in events]
    assert line.startswith("loading the settings of hosts failed")
    assert line.endswith("retrying soon")
    world.turn_to(NOON + 2 * RETRY_SECONDS)
    assert loads == [NOON, NOON + RETRY_SECONDS, NOON + 2 * RETRY_SECONDS]


def test_host_is_not_called_while_its_changed_settings_cannot_be_loaded(world: World) -> None:
    """The client has the response to its request to pause the host."""
    world.scheduler.start()
    world.store.overrides[load_settings] = lambda node: fail(StoreUnavailable("disk I/O error"))
    world.store.changes.publish(Changes(changed_hosts={"sink.example:80"}))
    key = world.put().key
    world.notify_due("sink.example:80")
    assert world.caller.called == []
    assert world.task(key).state is State.SCHEDULED
    del world.store.overrides[load_settings]
    world.turn_to(NOON + RETRY_SECONDS)
    assert world.caller.called == [f"task@{NOON}"]


def test_host_is_called_while_changed_settings_of_another_host_are_not_loaded(
    world: World,
) -> None:
    world.scheduler.start()
    world.store.overrides[load_settings] = lambda node: Deferred()
    world.store.changes.publish(Changes(changed_hosts={"other.example:80"}))
    world.put()
    world.notify_due("sink.example:80")
    assert world.caller.called == [f"task@{NOON}"]


def test_no_host_is_called_while_changed_settings_of_all_hosts_are_not_loaded(
    world: World,
) -> None:
    world.scheduler.start()
    loading: Deferred[Any] = Deferred()
    world.store.overrides[load_settings] = lambda node: loading
    world.store.changes.publish(Changes(changed_hosts={"*"}))
    world.put()
    world.notify_due("sink.example:80")
    assert world.caller.called == []
    loading.callback(SettingsSnapshot())
    assert world.caller.called == [f"task@{NOON}"]


def test_claim_in_flight_waits_for_settings_that_change_meanwhile(world: World) -> None:
    world.scheduler.start()
    key = world.put().key
    result: Deferred[Any] = Deferred()
    args = {"sink.example:80": 1}, NOON
    world.store.overrides[queue.claim] = lambda *_: result
    world.notify_due("sink.example:80")
    del world.store.overrides[queue.claim]
    loading: Deferred[Any] = Deferred()
    world.store.overrides[load_settings] = lambda node: loading
    world.store.changes.publish(Changes(changed_hosts={"sink.example:80"}))
    result.callback(world.result(world.store.run(queue.claim, *args)))
    assert world.caller.called == []
    assert world.task(key).state is State.SCHEDULED
    loading.callback(SettingsSnapshot())
    world.turn_to(NOON + 1)
    assert world.caller.called == [f"task@{NOON}"]
    assert world.task(key).attempts_used == 1


def test_earlier_settings_do_not_end_the_wait_for_the_latest(world: World) -> None:
    world.scheduler.start()
    loads = [Deferred[Any](), Deferred[Any]()]
    loading = iter(loads)
    world.store.overrides[load_settings] = lambda node: next(loading)
    for _ in loads:
        world.store.changes.publish(Changes(changed_hosts={"sink.example:80"}))
    world.put()
    world.notify_due("sink.example:80")
    loads[0].callback(SettingsSnapshot())
    assert world.caller.called == []
    loads[1].callback(SettingsSnapshot())
    assert world.caller.called == [f"task@{NOON}"]


def test_attempts_that_got_no_line_of_the_log_are_counted_by_the_next_minute(world: World) -> None:
    for number in range(103):
        world.put(f"n{number}")
    world.scheduler.start()
    with capturedLogs() as events:
        world.turn_to(NOON + 60)
    assert [formatEvent(event) for event in events] == ["3 more attempts succeeded in that second"]
