"""A daemon in memory: store, scheduler, API and web pages on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from callme.config import Settings
from callme.core.task import Definition, Outcome, Task
from callme.core.times import Key, to_ms
from callme.core.transitions import PutCondition, decide_after_attempt
from callme.security.tokens import Tokens
from callme.service import Environment, Parts, build
from callme.store import queue, tasks
from callme.store.changes import ChangeFeed, Changes
from callme.worker.scheduler import Scheduler
from tests.helpers.fake_caller import FakeCaller
from tests.helpers.instant_store import InstantStore
from tests.helpers.tasks import NOON, definition

T = TypeVar("T")


class World:
    """The parts of a daemon on a simulated clock, with a store in memory and a fake caller.

    The clock starts at noon. ``clock`` sets the timers; ``now`` reads the same clock.

    :param settings: as of :meth:`build`.
    :ivar tokens: the tokens that open a session; ``None`` if no login is required.
    """

    parts: Parts

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = float(NOON)
        self.now: Callable[[], float] = self.clock.seconds
        self.tokens: Tokens | None = None
        self.store: Any = InstantStore()
        self.caller = FakeCaller(self.now)
        self.build(**settings)

    def build(self, *, is_shared: bool = False, **settings: Any) -> None:
        """Build the parts, in place of the previous ones, which get no more changes.

        :param is_shared: whether other daemons use the same database.
        :param settings: fields of :class:`Settings`.
        """
        self.store.changes = ChangeFeed()
        self.parts = build(
            Environment(
                settings=Settings(**settings),
                store=self.store,
                caller=self.caller,
                clock=self.clock,
                now=self.now,
                node=lambda: "node",
                tokens=lambda: self.tokens,
                is_shared=is_shared,
                longest_turn=lambda: 0.004,
            )
        )
        self.http: Any = StubTreq(self.parts.site.resource)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler."""
        return self.parts.scheduler

    def restart(self, **settings: Any) -> None:
        """Kill the daemon with its timers, and start another one on the same database."""
        # The list is copied, because cancelling a timer removes it from the clock's own list.
        for timer in list(self.clock.getDelayedCalls()):
            timer.cancel()
        self.caller = FakeCaller(self.now, self.caller.status)
        self.build(**settings)
        self.scheduler.start()

    def put(self, name: str = "task", at: int = NOON, **more: Any) -> Definition:
        """Put a task into the store as another daemon would, without notifying this daemon."""
        made = definition(name, at, **more)
        # A task that is too late now must have been put before that.
        now = min(self.now(), made.expires_at - 1)
        self.result(self.store.elsewhere(tasks.put, made, PutCondition.NONE, now))
        return made

    def attempt(self, key: Key, count: int) -> None:
        """Make attempts of a task as another daemon would, an hour apart, which all fail."""
        for hour in range(count):
            now = key.trigger_at + 3600.0 * hour
            shares = {"sink.example:80": 1}
            (claim,) = self.result(self.store.elsewhere(queue.claim, shares, now))
            outcome = Outcome(started_at_ms=to_ms(now), duration_ms=5, status=500)
            transition = decide_after_attempt(claim, outcome, now)
            self.result(self.store.elsewhere(queue.record, claim, transition, now))

    def notify_due(self, *hosts: str) -> None:
        """Notify the daemon that hosts have due tasks."""
        self.store.changes.publish(Changes(due_hosts=dict.fromkeys(hosts, 0)))

    def task(self, key: Key) -> Task:
        """Return a task from the store."""
        task = self.result(self.store.read(tasks.get, key))
        assert isinstance(task, Task)
        return task

    def turn_to(self, seconds: float) -> None:
        """Advance the clock to a second since 1970, timer by timer."""
        while True:
            then = min([*self._timers(), seconds])
            self.clock.advance(max(0.0, then - self.clock.seconds()))
            if then >= seconds and not any(time <= seconds for time in self._timers()):
                break

    def jump_to(self, seconds: float) -> None:
        """Advance the clock to a second since 1970 at once: each timer fires once, and late.

        Unlike a turn, it takes no time for each minute in between.
        """
        self.clock.advance(seconds - self.clock.seconds())

    def _timers(self) -> list[float]:
        return [call.getTime() for call in self.clock.getDelayedCalls()]

    @staticmethod
    def result(deferred: Deferred[T]) -> T:
        """Return the result of a Deferred that has fired; raise its failure."""
        results: list[Any] = []
        failures: list[Any] = []
        deferred.addCallbacks(results.append, failures.append)
        if failures:
            failures[0].raiseException()
        assert results, "the Deferred has not fired"
        response: T = results[0]
        return response

    def close(self) -> None:
        """Close the database."""
        self.store.close()
