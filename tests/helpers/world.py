"""Fakes: a store without threads, a caller without sockets, time that is turned by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, evolve, field
from prometheus_client import CollectorRegistry
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from callme.api.long_poll import LongPoll
from callme.api.routes import Api
from callme.api.task_service import TaskService
from callme.core.task import Claim, Definition, Outcome, Task
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.metrics.counters import Counters
from callme.metrics.exporter import MetricsExporter
from callme.reports.forecaster import Forecaster
from callme.security.address_policy import AddressPolicy
from callme.security.tokens import Tokens
from callme.server.router import RootResource
from callme.store import tasks
from callme.store.changes import ChangeFeed, Changes
from callme.store.database import Operation, Store, Write
from callme.store.interface import StoreUnavailable
from callme.store.sqlite.cursor import SqliteCursor
from callme.store.sqlite.file import configure_writer, migrate
from callme.webui.chart_panels import ChartCache
from callme.webui.routes import WebUi
from callme.worker.pruner import Pruner
from callme.worker.scheduler import Scheduler
from tests.helpers.tasks import NOON, definition

T = TypeVar("T")


class InstantStore(Store):
    """A SQLite store on a database in memory, without threads: each call is done at once.

    :ivar is_broken: whether every call fails as if the database were locked.
    :ivar is_full: whether every write fails as if the disk were full.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        configure_writer(self.connection)
        migrate(self.connection)
        self.is_broken = self.is_full = self._failing = False

    @property
    def is_writable(self) -> bool:
        return not self._failing

    def run(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run an operation although it is overridden."""
        return self._write(Operation(function=operation, args=args, kwargs=kwargs))

    def query(self, query: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a query although it is overridden."""
        return self._read(lambda cursor: query(cursor, *args, **kwargs))

    def elsewhere(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run an operation as another daemon on the same database would: nothing is published."""
        return self._read(lambda cursor: operation(_write_on(cursor), *args, **kwargs))

    def _write(self, operation: Operation) -> Deferred[Any]:
        self._failing = self.is_broken or self.is_full
        if self._failing:
            reason = "database is locked" if self.is_broken else "disk is full"
            return fail(StoreUnavailable(reason))

        def run(cursor: Any) -> tuple[Any, Changes]:
            write = _write_on(cursor)
            return operation.run(write), evolve(write.changes, operations=1)

        def publish(committed: tuple[Any, Changes]) -> Any:
            result, changes = committed
            self.changes.publish(changes)
            return result

        return self._read(run).addCallback(publish)

    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        if self.is_broken:
            return fail(StoreUnavailable("database is locked"))
        self.connection.execute("BEGIN")
        try:
            result = query(self.connection.cursor(SqliteCursor))
        except Exception:
            self.connection.execute("ROLLBACK")
            return fail()
        self.connection.execute("COMMIT")
        return succeed(result)

    def close(self) -> Deferred[None]:
        self.connection.close()
        return succeed(None)


def _write_on(cursor: Any) -> Write:
    return Write(cursor=cursor, node=lambda: "node")


@define
class FakeCaller:
    """A caller whose calls end as the test says.

    :ivar calls: every call made, with the time it was made.
    :ivar pending: the calls that have not ended, by key.
    :ivar answer: the status that every call gets at once; ``None`` leaves it pending.
    :ivar failing: what is called instead, as no caller should be made to.
    """

    now: Callable[[], float]
    answer: int | None = 200
    failing: Callable[[Claim], Deferred[Outcome]] | None = None
    calls: list[tuple[float, Claim]] = field(factory=list)
    pending: dict[Key, Deferred[Outcome]] = field(factory=dict)
    cut_off: list[Key] = field(factory=list)

    def call(
        self, claim: Claim, has_more: Callable[[str], bool] = lambda host: False
    ) -> Deferred[Outcome]:
        self.calls.append((self.now(), claim))
        if self.failing is not None:
            return self.failing(claim)
        outcome = Outcome(started_at_ms=int(self.now() * 1000), duration_ms=5, status=self.answer)
        if self.answer is not None:
            return succeed(outcome)
        key = claim.definition.key
        ending: Deferred[Outcome] = Deferred(lambda _: self.cut_off.append(key))
        self.pending[key] = ending
        return ending

    def end(self, key: Key, status: int) -> None:
        """End a pending call with an answer of this status."""
        outcome = Outcome(started_at_ms=int(self.now() * 1000), duration_ms=5, status=status)
        self.pending.pop(key).callback(outcome)

    def close(self) -> Deferred[None]:
        return succeed(None)

    @property
    def called(self) -> list[str]:
        """The key of each call made, in order."""
        return [str(claim.definition.key) for _, claim in self.calls]


class World:
    """A daemon in memory: store, scheduler and API, its time in the test's hands.

    It begins at noon. ``clock`` sets the timers, ``now`` reads the same clock.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.tokens: Tokens | None = None
        self.networks: AddressPolicy = settings.pop("networks", AddressPolicy())
        self.clock.rightNow = float(NOON)
        self.now: Callable[[], float] = self.clock.seconds
        self.store: Any = InstantStore()
        self.caller = FakeCaller(self.now)
        self.waits = LongPoll(self.store, self.clock)
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
        """Return the endpoints."""
        return Api(
            self.store,
            self.scheduler,
            self.clock,
            self.now,
            self.metrics,
            self.networks,
            self.waits,
        )

    def _http(self) -> StubTreq:
        return StubTreq(self.resource())

    def resource(self) -> RootResource:
        """Return what answers requests: the API and the pages."""
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
        )

    def replace_long_poll(self, **settings: Any) -> None:
        """Serve clients that wait with other settings."""
        self.waits = LongPoll(self.store, self.clock, **settings)
        self.store.changes.subscribe(self.waits.on_changes)
        self.http = self._http()

    def restart(self, **settings: Any) -> None:
        """Let the daemon die, timers and all, and start another one on the same database."""
        # A copy: the clock hands out its own list, from which a cancelled timer is removed.
        for timer in list(self.clock.getDelayedCalls()):
            timer.cancel()
        self.caller = FakeCaller(self.now, self.caller.answer)
        self.waits = LongPoll(self.store, self.clock)
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
        """Return a task as the store has it."""
        task = self.result(self.store.read(tasks.get, key))
        assert isinstance(task, Task)
        return task

    def turn_to(self, seconds: float) -> None:
        """Let time pass in steps, as it does, up to a second since 1970."""
        while True:
            then = min([*self._timers(), seconds])
            self.clock.advance(max(0.0, then - self.clock.seconds()))
            if then >= seconds and not any(time <= seconds for time in self._timers()):
                break

    def _timers(self) -> list[float]:
        return [call.getTime() for call in self.clock.getDelayedCalls()]

    @staticmethod
    def result(deferred: Deferred[T]) -> T:
        """Return what a Deferred has fired with; raise what it failed with."""
        results: list[Any] = []
        failures: list[Any] = []
        deferred.addCallbacks(results.append, failures.append)
        if failures:
            failures[0].raiseException()
        assert results, "the Deferred has not fired"
        answer: T = results[0]
        return answer

    def close(self) -> None:
        """Let go of the database."""
        self.store.close()
