"""The longest turn of a reactor, on clocks that the test turns."""

from __future__ import annotations

from callme.process.turns import WINDOW_SECONDS, TurnMonitor


class Reactor:
    """A reactor whose turns the test runs; ``used`` is the processor time, ``now`` the clock."""

    def __init__(self) -> None:
        self.used = 100.0
        self.now = 1_000.0
        self.delays: list[float] = []

    def doIteration(self, delay: float) -> None:
        self.delays.append(delay)

    def turn(self, seconds: float) -> None:
        """Run a turn that works for some seconds."""
        self.doIteration(0.5)
        self.used += seconds


def monitored() -> tuple[Reactor, TurnMonitor]:
    reactor = Reactor()
    monitor = TurnMonitor(lambda: reactor.used, lambda: reactor.now)
    monitor.install(reactor)
    return reactor, monitor


def test_longest_turn_is_measured() -> None:
    reactor, monitor = monitored()
    assert monitor.longest_seconds() is None
    for seconds in (0.25, 2.0, 0.5, 0.0):
        reactor.turn(seconds)
    assert monitor.longest_seconds() == 2.0
    # The wait of a turn is not its work.
    reactor.now += 30
    reactor.turn(0.0)
    reactor.turn(0.0)
    assert monitor.longest_seconds() == 2.0
    assert reactor.delays == [0.5] * 6


def test_turn_is_forgotten_after_two_windows() -> None:
    reactor, monitor = monitored()
    reactor.turn(2.0)
    reactor.turn(0.0)
    reactor.now += WINDOW_SECONDS
    reactor.turn(1.0)
    reactor.turn(0.0)
    assert monitor.longest_seconds() == 2.0
    reactor.now += WINDOW_SECONDS
    reactor.turn(0.5)
    reactor.turn(0.0)
    assert monitor.longest_seconds() == 1.0
    reactor.now += 2 * WINDOW_SECONDS
    assert monitor.longest_seconds() == 0.0


def test_uninstalled_monitor_measures_nothing() -> None:
    reactor, monitor = monitored()
    reactor.turn(0.5)
    reactor.turn(0.0)
    monitor.uninstall(reactor)
    reactor.turn(9.0)
    reactor.turn(0.0)
    assert monitor.longest_seconds() == 0.5


def test_reactor_with_a_loop_of_its_own_is_not_measured() -> None:
    reactor, monitor = object(), TurnMonitor()
    monitor.install(reactor)
    assert monitor.longest_seconds() is None
