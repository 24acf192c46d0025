"""The dispatcher on a simulated clock: claims, calls and records, with fake calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from callme.core.task import Claim, Outcome, Reason, State, Transition
from callme.core.times import Key
from callme.hosts.operations import SettingsSnapshot
from callme.hosts.settings import HostSettings
from callme.store import queue
from callme.store.changes import Changes
from callme.store.interface import StoreUnavailable
from callme.worker.dispatcher import Dispatcher
from callme.worker.recorder import RETRY_SECONDS
from callme.worker.slots import Slots
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON
from tests.helpers.world import World

HOST = "sink.example:80"
OTHER = "other.example:80"
TASK = Key("task", NOON)


class Dispatching:
    """A dispatcher without a scheduler, over the store and the fake caller of a world.

    :ivar failed_claims: the failures of claims that it reported.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.failed_claims: list[Failure] = []
        self.dispatcher = self.make()

    def make(
        self,
        concurrency: int = 256,
        per_host: int = 64,
        wall_clock: Callable[[], float] | None = None,
    ) -> Dispatcher:
        made = Dispatcher(
            store=self.world.store,
            caller=self.world.caller,
            clock=self.world.clock,
            now=wall_clock or self.world.now,
            slots=Slots(concurrency=concurrency, per_host=per_host),
            on_claim_failure=self.failed_claims.append,
        )
        self.world.store.changes.subscribe(made.on_changes)
        return made

    def start(self, *, response: int | None = None, **settings: Any) -> None:
        """Open a new dispatcher; its calls stay in flight unless an answer is given."""
        self.world.caller.status = response
        self.dispatcher = self.make(**settings)
        self.dispatcher.open()

    def put(self, name: str = "task", host: str = HOST, **more: Any) -> Key:
        return self.world.put(name, callback=f"http://{host}/", **more).key

    def notify(self, *hosts: str) -> None:
        self.dispatcher.notify_due(hosts)

    def close(self, grace_seconds: float = 3, flush_seconds: float = 1) -> list[Any]:
        """Begin to close the dispatcher; return a list that gets an item at the end."""
        closed: list[Any] = []
        Deferred.fromCoroutine(self.dispatcher.drain(grace_seconds, flush_seconds)).addCallback(
            closed.append
        )
        return closed

    @property
    def calls(self) -> list[str]:
        """The names of the tasks that were called, in order."""
        return [claim.definition.task_name for _, claim in self.world.caller.calls]


@pytest.fixture
def dispatching(world: World) -> Dispatching:
    return Dispatching(world)


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


# Claims


def test_dispatcher_claims_nothing_before_it_is_opened(dispatching: Dispatching) -> None:
    dispatching.put()
    dispatching.notify(HOST)
    assert dispatching.calls == []
    dispatching.dispatcher.open()
    dispatching.notify()
    assert dispatching.calls == ["task"]


def test_claims_do_not_exceed_the_free_slots(dispatching: Dispatching) -> None:
    dispatching.start(concurrency=2)
    keys = [dispatching.put(f"n{number}", f"h{number}.example:80") for number in range(4)]
    dispatching.notify(*(f"h{number}.example:80" for number in range(4)))
    assert dispatching.calls == ["n0", "n1"]
    assert dispatching.dispatcher.calls_in_flight == 2
    assert dispatching.world.task(keys[2]).state is State.SCHEDULED
    dispatching.world.caller.end(keys[0], 200)
    assert dispatching.calls == ["n0", "n1", "n2"]


def test_calls_to_one_host_do_not_exceed_its_limit(dispatching: Dispatching) -> None:
    dispatching.start(per_host=2)
    keys = [dispatching.put(f"n{number}") for number in range(3)]
    other = dispatching.put("other", OTHER)
    dispatching.notify(HOST, OTHER)
    assert sorted(dispatching.calls) == ["n0", "n1", "other"]
    dispatching.world.caller.end(other, 200)
    assert len(dispatching.calls) == 3
    dispatching.world.caller.end(keys[0], 200)
    assert dispatching.calls[3:] == ["n2"]


def test_host_with_more_due_tasks_than_slots_is_claimed_again(dispatching: Dispatching) -> None:
    dispatching.start(concurrency=1, per_host=1, response=200)
    for number in range(5):
        dispatching.put(f"n{number}")
    dispatching.notify(HOST)
    assert dispatching.calls == [f"n{number}" for number in range(5)]
    assert dispatching.dispatcher.calls_in_flight == 0


def test_tasks_that_are_not_due_are_not_claimed(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put(at=NOON + 60)
    dispatching.notify(HOST)
    assert dispatching.calls == []


def test_reserved_slots_are_left_to_responsive_hosts(dispatching: Dispatching) -> None:
    dispatching.start(concurrency=8, per_host=2)
    first = dispatching.put("first", "quick.example:80")
    dispatching.notify("quick.example:80")
    dispatching.world.caller.end(first, 200)
    hanging = [f"hangs{number}.example:80" for number in range(20)]
    for host in hanging:
        dispatching.put(host.partition(".")[0], host)
    dispatching.notify(*hanging)
    # Four of the eight slots are reserved, half of these for hosts that have responded.
    assert dispatching.dispatcher.calls_in_flight == 6
    for number in range(2):
        dispatching.put(f"quick{number}", "quick.example:80")
    dispatching.notify("quick.example:80")
    assert dispatching.calls[-2:] == ["quick0", "quick1"]


def test_host_that_no_longer_responds_loses_the_reserved_slots(dispatching: Dispatching) -> None:
    dispatching.start(concurrency=8, per_host=2)
    first = dispatching.put("first", "quick.example:80")
    second = dispatching.put("second", "quick.example:80")
    dispatching.notify("quick.example:80")
    dispatching.world.caller.end(first, 200)
    outcome = Outcome(
        started_at_ms=NOON * 1000, duration_ms=5, status=None, reason=Reason.CONNECTION_FAILED
    )
    dispatching.world.caller.pending.pop(second).callback(outcome)
    hanging = [f"hangs{number}.example:80" for number in range(20)]
    for host in hanging:
        dispatching.put(host.partition(".")[0], host)
    dispatching.notify(*hanging)
    dispatching.put("again", "quick.example:80")
    dispatching.notify("quick.example:80")
    assert "again" not in dispatching.calls


def test_failed_claim_is_reported_and_made_at_the_next_notification(
    dispatching: Dispatching,
) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.world.store.is_broken = True
    dispatching.notify(HOST)
    (failure,) = dispatching.failed_claims
    assert failure.check(StoreUnavailable)
    dispatching.world.store.is_broken = False
    dispatching.notify()
    assert dispatching.calls == ["task"]


# Launch


def test_claim_is_returned_if_the_clock_is_stepped_back_before_the_call(
    dispatching: Dispatching,
) -> None:
    claimed_at = iter([NOON])
    dispatching.start(wall_clock=lambda: next(claimed_at, NOON - 30))
    dispatching.put()
    dispatching.notify(HOST)
    assert dispatching.calls == []
    task = dispatching.world.task(TASK)
    assert (task.state, task.due_at, task.attempts_used) == (State.SCHEDULED, NOON, 0)


def test_claim_is_returned_if_the_host_is_paused_before_the_call(
    dispatching: Dispatching,
) -> None:
    dispatching.start()
    paused = HostSettings(host=HOST, paused_at=NOON, paused_until=NOON + 60)

    def pause(changes: Changes) -> None:
        dispatching.dispatcher.limits.apply(SettingsSnapshot(settings=[paused]))

    dispatching.put()
    dispatching.world.store.changes.subscribe(pause)
    dispatching.notify(HOST)
    assert dispatching.calls == []
    task = dispatching.world.task(TASK)
    assert (task.state, task.due_at, task.attempts_used) == (State.SCHEDULED, NOON, 0)


def test_claim_past_max_delay_at_launch_fails_without_a_call(dispatching: Dispatching) -> None:
    claimed_at = iter([NOON])
    dispatching.start(wall_clock=lambda: next(claimed_at, NOON + 60))
    dispatching.put(max_delay=1)
    dispatching.notify(HOST)
    assert dispatching.calls == []
    task = dispatching.world.task(TASK)
    assert (task.state, task.reason, task.attempts_used) == (State.FAILED, Reason.TOO_LATE, 0)


def test_error_of_the_caller_is_recorded_as_interrupted(
    dispatching: Dispatching, logged_failures: LoggedFailures
) -> None:
    def fail_call(claim: Claim) -> Deferred[Outcome]:
        return fail(ZeroDivisionError())

    dispatching.world.caller.failing = fail_call
    dispatching.start()
    dispatching.put(retry=0)
    dispatching.notify(HOST)
    assert logged_failures.flush(ZeroDivisionError) == 1
    task = dispatching.world.task(TASK)
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED]
    assert dispatching.dispatcher.calls_in_flight == 0


# Records


def test_record_of_a_lost_claim_is_logged_and_frees_the_slot(
    dispatching: Dispatching, log_lines: list[str]
) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.world.store.connection.execute("UPDATE task SET last_attempt = last_attempt + 1")
    dispatching.world.caller.end(TASK, 200)
    task = dispatching.world.task(TASK)
    assert (task.state, task.attempts) == (State.RUNNING, ())
    assert dispatching.dispatcher.calls_in_flight == 0
    assert any("claim was lost" in line for line in log_lines)
    assert len(dispatching.close()) == 1


def test_record_is_retried_until_it_is_stored(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.world.store.is_broken = True
    dispatching.world.caller.end(TASK, 200)
    for _ in range(3):
        dispatching.world.clock.advance(RETRY_SECONDS)
    dispatching.world.store.is_broken = False
    assert dispatching.world.task(TASK).state is State.RUNNING
    dispatching.world.clock.advance(RETRY_SECONDS)
    task = dispatching.world.task(TASK)
    assert (task.state, task.attempts_used) == (State.SUCCEEDED, 1)
    assert dispatching.calls == ["task"]


def test_refused_record_is_stored_without_response_data(
    dispatching: Dispatching, logged_failures: LoggedFailures
) -> None:
    # SQLite has no integer of this size.
    dispatching.start(response=2**70)
    dispatching.put(retry=0)
    dispatching.notify(HOST)
    assert logged_failures.flush(OverflowError) == 1
    dispatching.world.clock.advance(RETRY_SECONDS)
    task = dispatching.world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    (attempt,) = task.attempts or ()
    assert (attempt.status, attempt.body) == (None, "")


def test_notification_of_a_recorded_end_is_called_at_once(dispatching: Dispatching) -> None:
    dispatching.start(response=500)
    dispatching.put(retry=0, on_failure="http://notify.example/")
    dispatching.notify(HOST)
    assert dispatching.calls == ["task", f"task.{NOON}.on_failure"]


def test_orphan_is_recorded_as_interrupted_once(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put(retry=0)
    dispatching.notify(HOST)
    (_, claim) = dispatching.world.caller.calls[0]
    dispatching.dispatcher.recover_orphans([claim])
    assert dispatching.world.task(TASK).state is State.RUNNING, "its own claim is no orphan"
    other = dispatching.make()
    other.recover_orphans([claim])
    task = dispatching.world.task(TASK)
    assert (task.state, task.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED]
    other.recover_orphans([claim])
    assert len(dispatching.world.task(TASK).attempts or ()) == 1


# Drain


def test_close_waits_for_calls_in_flight(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    closed = dispatching.close(grace_seconds=3)
    dispatching.world.clock.advance(2)
    assert closed == []
    dispatching.world.caller.end(TASK, 200)
    assert len(closed) == 1
    assert dispatching.world.task(TASK).state is State.SUCCEEDED


def test_close_records_cancelled_calls_as_interrupted(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.put("once", retry=0)
    dispatching.notify(HOST)
    closed = dispatching.close(grace_seconds=3)
    dispatching.world.clock.advance(3)
    assert len(closed) == 1
    assert len(dispatching.world.caller.cancelled) == 2
    task = dispatching.world.task(TASK)
    assert (task.state, task.attempts_left) == (State.SCHEDULED, 1)
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED]
    assert dispatching.world.task(Key("once", NOON)).reason is Reason.INTERRUPTED


def test_close_ends_although_nothing_can_be_recorded(dispatching: Dispatching) -> None:
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.world.store.is_broken = True
    closed = dispatching.close(grace_seconds=3, flush_seconds=1)
    dispatching.world.clock.advance(3)
    assert closed == []
    dispatching.world.clock.advance(1)
    assert len(closed) == 1
    for timer in dispatching.world.clock.getDelayedCalls():
        timer.cancel()


def test_closed_dispatcher_claims_nothing(dispatching: Dispatching) -> None:
    dispatching.start()
    assert len(dispatching.close()) == 1
    dispatching.dispatcher.open()
    dispatching.put()
    dispatching.notify(HOST)
    assert dispatching.calls == []
    assert dispatching.world.task(TASK).attempts_used == 0


# Calls that end at once


def test_calls_that_end_at_once_leave_no_room_for_more_than_the_slots(world: World) -> None:
    """A call to a forbidden address ends before the tasks claimed with it have their slots."""
    in_flight: list[int] = []

    def call(claim: Claim) -> Deferred[Outcome]:
        in_flight.append(world.scheduler.health().calls_in_flight)
        ends_at_once = claim.definition.task_name.startswith("quick")
        return succeed(Outcome(started_at_ms=0, status=200)) if ends_at_once else Deferred()

    world.build(concurrency=4, per_host=4)
    world.caller.failing = call
    for number in range(12):
        world.put(f"quick{number}")
        world.put(f"slow{number}")
    world.scheduler.start()
    assert max(in_flight) < 4
    assert world.scheduler.health().calls_in_flight == 4


def test_caller_that_raises_frees_its_slot(world: World, logged_failures: LoggedFailures) -> None:
    def call(claim: Claim) -> Deferred[Outcome]:
        raise ZeroDivisionError

    world.caller.failing = call
    world.put(retry=0)
    world.put("other", retry=0)
    world.scheduler.start()
    assert logged_failures.flush(ZeroDivisionError) == 2
    assert world.scheduler.health().calls_in_flight == 0
    assert world.task(TASK).reason is Reason.INTERRUPTED
    assert world.task(Key("other", NOON)).reason is Reason.INTERRUPTED


@pytest.mark.parametrize("retry_delay", [0, 1, 3])
def test_caller_that_raises_costs_one_attempt_a_minute(
    world: World, logged_failures: LoggedFailures, retry_delay: int
) -> None:
    def call(claim: Claim) -> Deferred[Outcome]:
        raise ZeroDivisionError

    world.caller.failing = call
    world.put(retry=5, retry_delay=retry_delay)
    world.scheduler.start()
    assert world.task(TASK).attempts_used == 1
    world.turn_to(NOON + 60 * max(1, retry_delay) - 1)
    assert world.task(TASK).attempts_used == 1
    world.caller.failing = None
    world.turn_to(NOON + 60 * max(1, retry_delay))
    assert world.task(TASK).state is State.SUCCEEDED
    assert logged_failures.flush(ZeroDivisionError) == 1


def test_failed_record_is_one_line_that_names_the_task(world: World, log_lines: list[str]) -> None:
    world.put("a {name} with braces", retry=0)
    world.caller.status = None
    world.scheduler.start()
    world.store.is_full = True
    world.caller.end(Key("a {name} with braces", NOON), 200)
    (line,) = [line for line in log_lines if "recording" in line]
    assert line == (
        f'recording an attempt of "a {{name}} with braces@{NOON}" failed: "disk is full"; '
        "retrying soon"
    )
    world.store.is_full = False
    world.turn_to(NOON + RETRY_SECONDS)
    assert world.task(Key("a {name} with braces", NOON)).state is State.SUCCEEDED


# Behaviour that surviving mutants of the code have changed


def test_call_with_a_status_that_is_cut_off_has_that_status(dispatching: Dispatching) -> None:
    """The endpoint has acted: to call it again would be a second call."""
    dispatching.start()
    caller = dispatching.world.caller
    caller.cancelled_outcome = Outcome(started_at_ms=NOON * 1000, duration_ms=5, status=200)
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.close(grace_seconds=3)
    dispatching.world.turn_to(NOON + 3)
    assert caller.cancelled == [TASK]
    assert dispatching.world.task(TASK).state is State.SUCCEEDED


def test_call_without_a_status_that_is_cut_off_was_interrupted(dispatching: Dispatching) -> None:
    """The endpoint is not to blame: the next attempt does not wait for the retry delay."""
    dispatching.start()
    caller = dispatching.world.caller
    caller.cancelled_outcome = Outcome(started_at_ms=NOON * 1000, reason=Reason.TIMEOUT)
    dispatching.put(retry_delay=5)
    dispatching.notify(HOST)
    dispatching.close(grace_seconds=3)
    dispatching.world.turn_to(NOON + 3)
    task = dispatching.world.task(TASK)
    assert [attempt.reason for attempt in task.attempts or ()] == [Reason.INTERRUPTED]
    assert (task.state, task.due_at) == (State.SCHEDULED, NOON)


def test_close_during_a_claim_that_fails_ends_at_once(dispatching: Dispatching) -> None:
    claiming: Deferred[Any] = Deferred()
    dispatching.world.store.overrides[queue.claim] = lambda *_: claiming
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    closed = dispatching.close(grace_seconds=3)
    assert closed == []
    claiming.errback(StoreUnavailable("database is locked"))
    assert closed == [None]
    assert dispatching.world.clock.seconds() == NOON


def test_record_that_the_database_refuses_is_stored_without_the_response(
    dispatching: Dispatching, logged_failures: LoggedFailures
) -> None:
    store = dispatching.world.store
    bodies: list[str] = []

    def refuse(claim: Claim, transition: Transition, now: float) -> Deferred[Any]:
        assert transition.attempt is not None
        bodies.append(transition.attempt.body)
        if transition.attempt.body:
            return fail(ValueError("the body is refused"))
        return store.run(queue.record, claim, transition, now)  # type: ignore[no-any-return]

    store.overrides[queue.record] = refuse
    dispatching.world.caller.failing = lambda claim: succeed(
        Outcome(started_at_ms=NOON * 1000, duration_ms=5, status=200, body="secret")
    )
    dispatching.start()
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.world.turn_to(NOON + 3 * RETRY_SECONDS)
    assert bodies == ["secret", ""]
    assert logged_failures.flush(ValueError) == 1
    task = dispatching.world.task(TASK)
    assert task.state is State.SUCCEEDED
    assert [attempt.body for attempt in task.attempts or ()] == [""]


def test_claim_returned_at_a_stop_is_due_in_the_present_minute(dispatching: Dispatching) -> None:
    """Its place among the due tasks is that of a task of this minute, as before the claim."""
    store = dispatching.world.store
    claiming: Deferred[Any] = Deferred()
    store.overrides[queue.claim] = lambda *_: claiming
    dispatching.put(max_delay=10)
    dispatching.world.turn_to(NOON + 90)
    dispatching.start()
    dispatching.notify(HOST)
    closed = dispatching.close()
    claiming.callback(World.result(store.run(queue.claim, {HOST: 1}, NOON + 90)))
    assert closed == [None]
    task = dispatching.world.task(TASK)
    assert (task.state, task.due_at, task.attempts_used) == (State.SCHEDULED, NOON + 60, 0)


def test_tasks_of_a_paused_host_are_called_when_its_pause_ends_between_two_ticks(
    dispatching: Dispatching,
) -> None:
    dispatching.start()
    paused = HostSettings(host=HOST, paused_at=NOON, paused_until=NOON + 5)
    dispatching.dispatcher.apply_settings(SettingsSnapshot(settings=[paused]))
    dispatching.put()
    dispatching.notify(HOST)
    dispatching.world.turn_to(NOON + 4.9)
    assert dispatching.calls == []
    dispatching.world.turn_to(NOON + 6)
    assert dispatching.calls == ["task"]


def test_close_waits_for_the_record_of_an_orphan(dispatching: Dispatching) -> None:
    store = dispatching.world.store
    dispatching.put()
    claims = World.result(store.run(queue.claim, {HOST: 1}, NOON))
    recording: Deferred[bool] = Deferred()
    store.overrides[queue.record] = lambda *_: recording
    dispatching.start()
    dispatching.dispatcher.recover_orphans(claims)
    closed = dispatching.close()
    assert closed == []
    recording.callback(True)
    assert closed == [None]
