"""A daemon in memory: store, scheduler, API and web pages on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from callme.api.long_poll import LongPoll
from callme.api.routes import Api
from callme.api.task_service import TaskService
from callme.core.task import Definition, Task
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.metrics.counters import Counters
from callme.metrics.exporter import MetricsExporter
from callme.reports.forecaster import Forecaster
from callme.security.address_policy import AddressPolicy
from callme.security.login_throttle import LoginThrottle
from callme.security.tokens import Tokens
from callme.server.router import RootResource
from callme.store import tasks
from callme.store.changes import ChangeFeed, Changes
from callme.webui.chart_panels import ChartCache
from callme.webui.routes import WebUi
from callme.worker.pruner import Pruner
from callme.worker.scheduler import Scheduler
from tests.helpers.fake_caller import FakeCaller
from tests.helpers.instant_store import InstantStore
from tests.helpers.tasks import NOON, definition

T = TypeVar("T")


class World:
    """The parts of a daemon, wired together on a simulated clock.

    The clock starts at noon. ``clock`` sets the timers; ``now`` reads the same clock.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.tokens: Tokens | None = None
        self.networks: AddressPolicy = settings.pop("networks", AddressPolicy())
        self.clock.rightNow = float(NOON)
        self.now: Callable[[], float] = self.clock.seconds
        self.store: Any = InstantStore()
        self.caller = FakeCaller(self.now)
        self.waits = LongPoll(store=self.store, clock=self.clock)
        self.scheduler = self._scheduler(**settings)
        self.http: Any = self._http()

    def _scheduler(self, retention: int = 30, **settings: Any) -> Scheduler:
        forgetting = Pruner(self.store, self.clock, self.now, retention)
        registry = CollectorRegistry()
        made = Scheduler(self.store, self.caller, forgetting, self.clock, self.now, **settings)
        self.store.changes = ChangeFeed()
        for subscriber in (Counters(registry), self.waits, made):
            self.store.changes.subscribe(subscriber.on_changes)
        self.metrics = MetricsExporter(
            registry=registry,
            store=self.store,
            health=made.health,
            clock=self.clock,
            now=self.now,
            node=lambda: "node",
            concurrency=settings.get("concurrency", 256),
        )
        return made

    def api(self) -> Api:
        """Return the API."""
        return Api(
            store=self.store,
            scheduler=self.scheduler,
            clock=self.clock,
            now=self.now,
            metrics=self.metrics,
            networks=self.networks,
            long_poll=self.waits,
        )

    def _http(self) -> StubTreq:
        return StubTreq(self.resource())

    def resource(self) -> RootResource:
        """Return the root resource: the API and the web pages."""
        return RootResource(self.api().app.resource(), self._pages().app.resource())

    def _pages(self) -> WebUi:
        store = self.store
        forecaster = Forecaster(
            store=store, capacity=self.scheduler.capacity, clock=self.clock, now=self.now
        )
        return WebUi(
            store=store,
            scheduler=self.scheduler,
            tasks=TaskService(store, self.now),
            charts=ChartCache(store=store, forecaster=forecaster, clock=self.clock, now=self.now),
            now=self.now,
            node=lambda: "node",
            tokens=lambda: self.tokens,
            logins=LoginThrottle(self.clock.seconds),
        )

    def replace_long_poll(self, **settings: Any) -> None:
        """Serve clients that wait with other settings."""
        self.waits = LongPoll(store=self.store, clock=self.clock, **settings)
        self.store.changes.subscribe(self.waits.on_changes)
        self.http = self._http()

    def restart(self, **settings: Any) -> None:
        """Kill the daemon with its timers, and start another one on the same database."""
        # A copy: the clock hands out its own list, from which a cancelled timer is removed.
        for timer in list(self.clock.getDelayedCalls()):
            timer.cancel()
        self.caller = FakeCaller(self.now, self.caller.status)
        self.waits = LongPoll(store=self.store, clock=self.clock)
        self.scheduler = self._scheduler(**settings)
        self.http = self._http()
        self.scheduler.start()

    def put(self, name: str = "task", at: int = NOON, **more: Any) -> Definition:
        """Put a task into the store as another daemon would: this one hears nothing of it."""
        made = definition(name, at, **more)
        # A task that is too late by now must have been put before it was.
        now = min(self.now(), made.expires_at - 1)
        self.result(self.store.elsewhere(tasks.put, made, PutCondition.NONE, now))
        return made

    def notify_due(self, *hosts: str) -> None:
        """Let the daemon know that hosts have due tasks."""
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
