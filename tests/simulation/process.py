"""The process of a daemon: the real daemon over a simulated reactor."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from callme.config import Options
from callme.service import Daemon
from callme.store.postgresql.dsn import Server
from callme.store.sqlite.file import open_database

from .database import Connections, Disk
from .endpoints import Network
from .server import DatabaseServer, Link, SimulatedConnections
from .timeline import Timeline, Timer

LOST_AFTER = 15.0
"""Seconds without the database after which a daemon may count as dead: its last heartbeat may be
older by some seconds, and the first one after an interruption may fail too."""


class Unsignalled(Daemon):
    """The daemon without its signal handlers, which would affect the simulation's own process."""

    def _handle_signals(self) -> None:
        """Install no handlers."""


@define(eq=False)
class Port:
    """The listening port of a process."""

    reactor: Reactor

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 6777)

    def stopListening(self) -> Deferred[None]:
        self.reactor.factory = None
        return succeed(None)


@implementer(IReactorTime)
class Reactor:
    """The subset of a reactor that the daemon needs.

    :ivar factory: the factory for connections, while the process listens.
    """

    def __init__(self, timeline: Timeline, process: Process) -> None:
        self.timeline, self.process = timeline, process
        self.factory: Any = None

    def seconds(self) -> float:
        return self.timeline.elapsed - self.process.slept

    def callLater(self, delay: float, callable: Any, *args: Any, **named: Any) -> Any:  # noqa: A002
        timer = self.timeline.after(delay, self.process, callable, *args, **named)
        timer.is_own = True
        return timer

    def getDelayedCalls(self) -> list[Any]:
        return []

    def callFromThread(self, happen: Callable[..., Any], *args: Any, **named: Any) -> None:
        if self.process.alive:
            self.callLater(self.process.news_takes(), happen, *args, **named)

    def callWhenRunning(self, happen: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return self.callLater(0, happen, *args, **named)

    def addSystemEventTrigger(self, *_: Any) -> None:
        """Ignore triggers: here the service does all work at shutdown."""

    def removeSystemEventTrigger(self, trigger: Timer) -> None:
        if trigger.active():
            trigger.cancel()

    def listenTCP(self, port: int, factory: Any, **_: Any) -> Port:
        # The site is not started: that would start the timer of an unused access log.
        self.factory = factory
        return Port(self)


class Steady:
    """The timers of the daemon: those of this reactor already use the monotonic clock."""

    def __init__(self, reactor: Reactor) -> None:
        self.seconds, self.callLater = reactor.seconds, reactor.callLater

    def start(self) -> None:
        """Do nothing: the clock needs no watching."""

    stop = start


class Process:
    """One daemon, from its start to its death.

    :ivar alive: whether its events still happen.
    :ivar frozen_until: the moment (monotonic) before which none of them happens.
    :ivar slept: seconds for which its monotonic clock has stopped.
    :ivar skew: seconds by which its wall clock is ahead of the true one.
    :ivar disturbed: periods (monotonic) in which it may not reach the database.
    """

    def __init__(
        self,
        timeline: Timeline,
        network: Network,
        arguments: list[str],
        news_takes: Callable[[], float],
        skew: float = 0.0,
    ) -> None:
        self.alive = True
        self.frozen_until = 0.0
        self.slept = 0.0
        self.skew = skew
        self.disturbed: list[tuple[float, float]] = []
        self.timeline, self.network, self.news_takes = timeline, network, news_takes
        self.reactor = Reactor(timeline, self)
        options = Options({})
        options.parseOptions(arguments)
        assert options.settings is not None
        self.settings = options.settings

    def _now(self) -> float:
        return self.timeline.wall() + self.skew

    def _make_daemon(self, database: Any) -> Unsignalled:
        return Unsignalled(self.settings, database, self.reactor, now=self._now)

    def _start_daemon(self, daemon: Unsignalled) -> None:
        self.daemon = daemon
        daemon.privilegedStartService()
        daemon.startService()

    @property
    def listens(self) -> bool:
        return self.alive and self.reactor.factory is not None

    def may_have_lost_claims(self, since: float) -> bool:
        """Return whether its peers may have taken over a claim that it had at a moment."""
        return any(end - begin >= LOST_AFTER and end > since for begin, end in self.disturbed)

    def terminate(self) -> Deferred[None]:
        """Stop the daemon, as SIGTERM does; it is dead once this fires."""
        stopping = self.daemon.stopService()

        def ended(_: object) -> None:
            self.alive = False
            self.network.drop(self)

        return stopping.addCallback(ended)

    def end(self) -> None:
        """Kill the process now."""
        self.alive = False
        self.network.drop(self)


class LoneProcess(Process):
    """Daemon with its own file."""

    def __init__(
        self,
        timeline: Timeline,
        disk: Disk,
        network: Network,
        path: Path,
        arguments: list[str],
        news_takes: Callable[[], float],
    ) -> None:
        arguments = ["--database", str(path), *arguments]
        super().__init__(timeline, network, arguments, news_takes)
        self.path = path
        self.connections = Connections(disk)
        self._database = open_database(path)
        daemon = self._make_daemon(self._database)
        store: Any = daemon.parts.store
        self.connections.join(store._writer, self.reactor)
        self.connections.join(store._readers, self.reactor)
        self._start_daemon(daemon)

    def kill(self, to: Path) -> None:
        """Kill the process now, and copy its database to another file."""
        self.end()
        self.connections.cut_off(self.path, to)
        os.close(self._database.lock)


class MemberProcess(Process):
    """A daemon of a fleet.

    :ivar pools: its connections to the database.
    :ivar is_in_doubt: whether a response of the database to it was ever lost.
    """

    def __init__(
        self,
        timeline: Timeline,
        server: DatabaseServer,
        network: Network,
        arguments: list[str],
        news_takes: Callable[[], float],
        skew: float,
    ) -> None:
        super().__init__(timeline, network, arguments, news_takes, skew)
        self.pools: list[SimulatedConnections] = []
        self.is_in_doubt = False
        self.link = Link(server, self)
        database = Server(conninfo=self.link, display_url="simulated", version="0")  # type: ignore[arg-type]
        self._start_daemon(self._make_daemon(database))

    @property
    def name(self) -> str:
        """The name of the daemon in its fleet."""
        return str(self.settings.node)

    @property
    def node_id(self) -> int | None:
        """The number of its row in the database."""
        store: Any = self.daemon.parts.store
        return None if store._own_member is None else store._own_member.node_id

    def kill(self) -> None:
        """Kill the process now; its connections end."""
        self.end()
        for pool in self.pools:
            pool.drop()
