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
from callme.store.sqlite.file import open_database

from .database import Connections, Disk
from .endpoints import Network
from .timeline import Timeline, Timer


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
        store: Any = self.daemon.parts.store
        self.connections.join(store._writer, self.reactor)
        self.connections.join(store._readers, self.reactor)
        self.daemon.privilegedStartService()
        self.daemon.startService()

    @property
    def listens(self) -> bool:
        return self.alive and self.reactor.factory is not None

    def terminate(self) -> Deferred[None]:
        """Stop the daemon, as SIGTERM does; it is dead once this fires."""
        stopping = self.daemon.stopService()

        def ended(_: object) -> None:
            self.alive = False
            self.network.drop(self)

        return stopping.addCallback(ended)

    def kill(self, to: Path) -> None:
        """Kill the process now, and copy its database to another file."""
        self.alive = False
        self.network.drop(self)
        self.connections.cut_off(self.path, to)
        os.close(self._database.lock)
