"""A daemon's process: the daemon itself, as it is, over a reactor that is not."""

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
from callme.store.sqlite.database import open_database

from .database import Connections, Disk
from .endpoints import Network
from .timeline import Timeline, Timer


class Unsignalled(Daemon):
    """The daemon, but for the one thing it does to the process that the simulation runs in."""

    def _handle_signals(self) -> None:
        """Leave signals alone."""


@define(eq=False)
class Port:
    """Where a process listens."""

    reactor: Reactor

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 6777)

    def stopListening(self) -> Deferred[None]:
        self.reactor.factory = None
        return succeed(None)


@implementer(IReactorTime)
class Reactor:
    """As much of a reactor as the daemon needs.

    :ivar factory: what takes connections, while the process listens.
    """

    def __init__(self, timeline: Timeline, process: Process) -> None:
        self.timeline, self.process = timeline, process
        self.factory: Any = None

    def seconds(self) -> float:
        return self.timeline.elapsed

    def callLater(self, delay: float, callable: Any, *args: Any, **named: Any) -> Any:  # noqa: A002
        return self.timeline.after(delay, self.process, callable, *args, **named)

    def getDelayedCalls(self) -> list[Any]:
        return []

    def callFromThread(self, happen: Callable[..., Any], *args: Any, **named: Any) -> None:
        if self.process.alive:
            self.callLater(self.process.news_takes(), happen, *args, **named)

    def callWhenRunning(self, happen: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return self.callLater(0, happen, *args, **named)

    def addSystemEventTrigger(self, *_: Any) -> None:
        """Whatever is to be done at the end of a process is done by its service here."""

    def removeSystemEventTrigger(self, trigger: Timer) -> None:
        if trigger.active():
            trigger.cancel()

    def listenTCP(self, port: int, factory: Any, **_: Any) -> Port:
        # Not started: that would set the second of an access log which is not kept.
        self.factory = factory
        return Port(self)


class Steady:
    """The daemon's timers: those of this reactor go by the monotonic clock as they are."""

    def __init__(self, reactor: Reactor) -> None:
        self.seconds, self.callLater = reactor.seconds, reactor.callLater

    def start(self) -> None:
        """Watch no clock."""

    stop = start


class Process:
    """One daemon, from its start to its death.

    :ivar alive: whether anything that is its own still happens.
    """

    def __init__(
        self,
        timeline: Timeline,
        disk: Disk,
        network: Network,
        path: Path,
        arguments: list[str],
        news_takes: Callable[[], float],
    ) -> None:
        self.alive = True
        self.network, self.path, self.news_takes = network, path, news_takes
        self.reactor = Reactor(timeline, self)
        self.connections = Connections(disk)
        options = Options({})
        options.parseOptions(["--database", str(path), *arguments])
        assert options.settings is not None
        self.settings = options.settings
        self._database = open_database(path)
        self.daemon = Unsignalled(self.settings, self._database, self.reactor, now=timeline.wall)
        watched: Any = self.daemon._store
        store = watched._store
        self.connections.join(store._writer, self.reactor)
        self.connections.join(store._readers, self.reactor)
        self.daemon.privilegedStartService()
        self.daemon.startService()

    @property
    def listens(self) -> bool:
        return self.alive and self.reactor.factory is not None

    def terminate(self) -> Deferred[None]:
        """Ask it to end, as SIGTERM does; it is dead once this fires."""
        stopping = self.daemon.stopService()

        def ended(_: object) -> None:
            self.alive = False
            self.network.drop(self)

        return stopping.addCallback(ended)

    def kill(self, to: Path) -> None:
        """End it here and now, and leave its database in another file."""
        self.alive = False
        self.network.drop(self)
        self.connections.cut_off(self.path, to)
        os.close(self._database.lock)
