"""Fixtures of all tests: checks for timers and errors left behind, the world, the databases."""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from hypothesis import settings
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogPublisher

from callme.store import queue
from callme.store.database import Store
from callme.store.postgresql.dsn import Server
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.setup import open_server
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database
from tests.helpers.logs import LoggedFailures
from tests.helpers.postgres import Cluster
from tests.helpers.stores import NOW
from tests.helpers.world import World

# A busy machine must not fail a test.
settings.register_profile("callme", deadline=None)
settings.load_profile("callme")

# As with programs that are missing, these tests are left out, but never in CI.
_NEEDS = {
    "unit/client/*": ("httpx", "flask", "fastapi"),
    "unit/client/test_django.py": ("django",),
    "unit/cli/*": ("httpx", "click", "rich"),
    "daemon/test_client.py": ("httpx",),
    "daemon/test_command.py": ("httpx", "click", "rich"),
}
collect_ignore_glob = [
    tests
    for tests, packages in _NEEDS.items()
    if not os.environ.get("CI") and not all(map(find_spec, packages))
]


def pytest_collection_finish() -> None:
    """Exempt all modules from the collections after each test, which they would make slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logged_failures(request: pytest.FixtureRequest) -> Iterator[LoggedFailures]:
    """Fail a test that leaves a timer or an unexpected logged failure behind."""
    observer = LoggedFailures()
    globalLogPublisher.addObserver(observer)
    try:
        yield observer
        if inspect.iscoroutinefunction(getattr(request.function, "__wrapped__", request.function)):
            # A Deferred with an unhandled failure logs it when it is collected.
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
    """A daemon without sockets, threads or real time: see :class:`World`."""
    world = World()
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that does not sync to disk."""
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def database(cluster: Cluster) -> Server:
    """A database on that server, with the clients' clock instead of the server's."""
    return evolve(open_server(cluster.create("contract")), use_client_clock=True)


@pytest.fixture
def server(cluster: Cluster, database: Server) -> Server:
    """The same database, emptied."""
    cluster.empty("contract")
    return database


@pytest_twisted.async_yield_fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "sqlite":
        made = SqliteStore(open_database(tmp_path / "callme.sqlite"), reactor, lambda: "node")
    else:
        server = request.getfixturevalue("server")
        made = PostgresqlStore(server, reactor, lambda: "node")
        # A store must send a heartbeat before it claims, as a tick does.
        await made.write(queue.take_orphans, NOW)
    yield made
    await made.close()
