from __future__ import annotations

from twisted.internet.task import Clock

from callme.caller.timer_wheel import Deadlines


def test_deadline_fires_on_time_and_not_early() -> None:
    clock, done = Clock(), list[str]()
    clock.advance(0.03)
    deadlines = Deadlines(clock)
    deadlines.set(1, lambda: done.append("one"))
    deadlines.set(2, lambda: done.append("two"))
    clock.advance(0.999)
    assert done == []
    clock.advance(0.1)
    assert done == ["one"]
    clock.advance(1)
    assert done == ["one", "two"]
    assert clock.getDelayedCalls() == []


def test_deadlines_of_one_slot_share_a_timer() -> None:
    clock, done = Clock(), list[int]()
    deadlines = Deadlines(clock)
    kept = [deadlines.set(5, lambda number=number: done.append(number)) for number in range(9)]  # type: ignore[misc]
    assert len(clock.getDelayedCalls()) == 1
    for deadline in kept[1:]:
        deadlines.call_off(deadline)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(5)
    assert done == [0]
    deadlines.call_off(kept[0])
    last = deadlines.set(5, lambda: done.append(1))
    deadlines.call_off(last)
    deadlines.call_off(last)
    assert clock.getDelayedCalls() == []


def test_deadline_may_cancel_another_of_its_slot() -> None:
    clock, done = Clock(), list[str]()
    deadlines = Deadlines(clock)
    other = deadlines.set(1, lambda: done.append("other"))
    deadlines.set(1, lambda: deadlines.call_off(other))
    clock.advance(1)
    assert done in ([], ["other"])
