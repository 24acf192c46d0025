"""The monotonic clock, on a reactor whose wall clock is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from zope.interface.verify import verifyObject

from callme.process.monotonic_clock import WATCH_SECONDS, MonotonicClock

HOUR = 3600.0


@define(eq=False)
class Machine:
    """A machine with a settable wall clock, which its reactor uses, as Twisted's does."""

    wall: Clock = field(factory=Clock)
    steady: float = 1000.0
    rung: list[str] = field(factory=list)
    clock: MonotonicClock = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wall.rightNow = 1_800_000_000.0
        self.clock = MonotonicClock(self.wall, lambda: self.steady)

    def passes(self, seconds: float) -> None:
        self.steady += seconds
        self.wall.advance(seconds)

    def sets(self, step: float, *, noticed: bool = True) -> None:
        """Set the wall clock; the reactor notices when it next wakes."""
        self.wall.rightNow += step
        if noticed:
            self.clock._reschedule_all(step)
        self.wall.advance(0)

    def timer(self, delay: float, name: str = "rung") -> Any:
        return self.clock.callLater(delay, self.rung.append, name)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_clock_provides_ireactortime(machine: Machine) -> None:
    verifyObject(IReactorTime, machine.clock)
    assert machine.clock.seconds() == 1000.0


def test_timers_fire_in_order_and_not_early(machine: Machine) -> None:
    machine.timer(2, "second")
    machine.timer(1, "first")
    assert len(machine.clock.getDelayedCalls()) == 2
    machine.passes(0.999)
    assert machine.rung == []
    machine.passes(0.001)
    assert machine.rung == ["first"]
    machine.passes(1)
    assert machine.rung == ["first", "second"]
    assert machine.clock.getDelayedCalls() == []


def test_timer_can_be_cancelled_reset_and_delayed(machine: Machine) -> None:
    machine.timer(1, "called off").cancel()
    sooner, later = machine.timer(10, "sooner"), machine.timer(1, "later")
    sooner.reset(0.5)
    later.delay(1)
    machine.passes(0.5)
    assert machine.rung == ["sooner"]
    machine.passes(1)
    assert machine.rung == ["sooner"]
    machine.passes(0.5)
    assert machine.rung == ["sooner", "later"]
    assert machine.wall.getDelayedCalls() == []


@pytest.mark.parametrize("step", [-HOUR, HOUR, -0.5, 30 * 365 * 24 * HOUR])
def test_wall_clock_change_does_not_move_timers(machine: Machine, step: float) -> None:
    machine.timer(10)
    machine.passes(4)
    machine.sets(step)
    machine.passes(5.99)
    assert machine.rung == []
    machine.passes(0.01)
    assert machine.rung == ["rung"]


def test_unnoticed_forward_jump_does_not_fire_timers_early(machine: Machine) -> None:
    machine.timer(10)
    machine.sets(HOUR, noticed=False)
    assert machine.rung == []
    machine.passes(10)
    assert machine.rung == ["rung"]


def test_looping_call_survives_a_clock_change(machine: Machine) -> None:
    turns: list[float] = []
    loop = LoopingCall(lambda: turns.append(machine.steady))
    loop.clock = machine.clock
    loop.start(1, now=False)
    for step in (0, -HOUR, 2 * HOUR, -HOUR):
        machine.sets(step)
        machine.passes(1)
    assert turns == [1001, 1002, 1003, 1004]
    loop.stop()


@define(eq=False)
class Set:
    """The real reactor after a change of its wall clock: its timers never fire."""

    step: float = 0.0
    waiting: list[Any] = field(factory=list)

    def seconds(self) -> float:
        return IReactorTime(reactor).seconds() + self.step

    def callLater(self, delay: float, call: Callable[..., Any], *args: Any) -> Any:
        timer = IReactorTime(reactor).callLater(HOUR, call, *args)
        self.waiting.append(timer)
        return timer

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        reactor.callFromThread(call, *args)  # type: ignore[attr-defined]


async def test_clock_change_is_noticed_while_the_reactor_sleeps() -> None:
    wall = Set()
    clock = MonotonicClock(wall)
    clock.stop()
    rung: Deferred[None] = Deferred()
    clock.callLater(WATCH_SECONDS / 2, rung.callback, None)
    clock.start()
    wall.step = -HOUR
    began = clock.seconds()
    # On a busy machine, the thread that watches the clock may be late.
    await rung.addTimeout(60 * WATCH_SECONDS, IReactorTime(reactor))
    assert clock.seconds() - began < 60 * WATCH_SECONDS
    clock.stop()
