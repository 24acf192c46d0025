"""What every test gets: a reactor left clean, and no error that nobody looked at."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator

import pytest
from attrs import evolve
from hypothesis import settings
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from callme.store.postgresql.database import open_server
from callme.store.postgresql.server import Server

from .helpers.postgresql import Cluster
from .helpers.support import World

# A busy machine is no reason to fail.
settings.register_profile("callme", deadline=None)
settings.load_profile("callme")


@implementer(ILogObserver)
class LoggedFailures:
    """The failures logged during a test, those that nobody handled among them."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    def flush(self, kind: type[BaseException]) -> int:
        """Forget the failures of one kind, which the test provoked; return how many."""
        found = [failure for failure in self.failures if failure.check(kind)]
        self.failures = [failure for failure in self.failures if failure not in found]
        return len(found)


@pytest.fixture(autouse=True)
def logged_failures(request: pytest.FixtureRequest) -> Iterator[LoggedFailures]:
    """Fail a test that leaves a timer behind, or an error that it did not ask for."""
    observer = LoggedFailures()
    globalLogPublisher.addObserver(observer)
    try:
        yield observer
        if inspect.iscoroutinefunction(getattr(request.function, "__wrapped__", request.function)):
            # A Deferred that failed with nobody to see it says so when it is collected.
            gc.collect()
    finally:
        globalLogPublisher.removeObserver(observer)
    timers = IReactorTime(reactor).getDelayedCalls()
    for timer in timers:
        timer.cancel()
    assert [str(timer) for timer in timers] == [], "timers left behind"
    assert [f.getErrorMessage() for f in observer.failures] == [], "errors nobody looked at"


@pytest.fixture
def world() -> Iterator[World]:
    """A daemon without sockets, threads and real time: see :class:`World`."""
    world = World()
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server; what it holds need not outlast its machine."""
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def database(cluster: Cluster) -> Server:
    """A database of callme's in it, where the time is what the tests say."""
    return evolve(open_server(cluster.create("contract")), use_client_clock=True)


@pytest.fixture
def server(cluster: Cluster, database: Server) -> Server:
    """The same, empty."""
    cluster.empty("contract")
    return database
