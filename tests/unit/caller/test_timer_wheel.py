from __future__ import annotations

from twisted.internet.task import Clock

from callme.caller.timer_wheel import TimerWheel
from tests.helpers.logs import LoggedFailures


def test_deadline_fires_on_time_and_not_early() -> None:
    clock, done = Clock(), list[str]()
    clock.advance(0.03)
    wheel = TimerWheel(clock)
    wheel.set(1, lambda: done.append("one"))
    wheel.set(2, lambda: done.append("two"))
    clock.advance(0.999)
    assert done == []
    clock.advance(0.1)
    assert done == ["one"]
    clock.advance(1)
    assert done == ["one", "two"]
    assert clock.getDelayedCalls() == []


def test_short_deadline_fires_within_a_tenth_of_a_second() -> None:
    clock, done = Clock(), list[str]()
    wheel = TimerWheel(clock)
    wheel.set(0.25, lambda: done.append("one"))
    clock.advance(0.2)
    assert done == []
    clock.advance(0.11)
    assert done == ["one"]
    assert wheel._delayed_calls == {}, "it would grow with each tick"


def test_deadlines_of_one_slot_share_a_timer() -> None:
    clock, done = Clock(), list[int]()
    wheel = TimerWheel(clock)
    kept = [wheel.set(5, lambda number=number: done.append(number)) for number in range(9)]  # type: ignore[misc]
    assert len(clock.getDelayedCalls()) == 1
    for timer in kept[1:]:
        wheel.cancel(timer)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(5)
    assert done == [0]
    wheel.cancel(kept[0])
    last = wheel.set(5, lambda: done.append(1))
    wheel.cancel(last)
    wheel.cancel(last)
    assert clock.getDelayedCalls() == []


def test_deadline_may_cancel_another_of_its_slot() -> None:
    clock, done = Clock(), list[str]()
    wheel = TimerWheel(clock)
    other = wheel.set(1, lambda: done.append("other"))
    wheel.set(1, lambda: wheel.cancel(other))
    clock.advance(1)
    assert done in ([], ["other"])


def test_failing_timer_leaves_the_others_of_its_tick(logged_failures: LoggedFailures) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    clock, done = Clock(), list[str]()
    wheel = TimerWheel(clock)
    wheel.set(1, fail)
    wheel.set(1, lambda: done.append("other"))
    clock.advance(1)
    assert done == ["other"]
    assert logged_failures.flush(ZeroDivisionError) == 1


def test_sockets_are_read_once_more_before_a_deadline_expires() -> None:
    """The reactor runs all expired timers before it reads: see its main loop."""

    class Reactor(Clock):
        """A clock that reads between the timers that expire together and those set by them."""

        def advance(self, amount: float) -> None:
            self.rightNow += amount
            expired, self.calls = list(self.calls), []
            for delayed in expired:
                delayed.func(*delayed.args)
            arrived()
            super().advance(0)

    clock, done = Reactor(), list[str]()
    wheel = TimerWheel(clock)
    answered = wheel.set(1, lambda: done.append("answered"))
    wheel.set(1, lambda: done.append("silent"))

    def arrived() -> None:
        wheel.cancel(answered)

    # The process was stopped for a minute.
    clock.advance(60)
    assert done == ["silent"]
    assert clock.getDelayedCalls() == []
