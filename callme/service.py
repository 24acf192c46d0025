"""The daemon put together: what is made, what is started, what is stopped, in which order."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from . import __version__
from .api.long_poll import LongPoll
from .api.routes import Api
from .api.task_service import TaskService
from .caller.call import HttpCaller
from .config import Settings
from .metrics.counters import Counters
from .metrics.exporter import MetricsExporter
from .monotonic_clock import MonotonicClock
from .reports.forecaster import Forecaster
from .security.login_throttle import LoginThrottle
from .security.secret_file import SecretFile
from .security.signing import SigningKeys
from .server.auth import Gate
from .server.listen import address_of, connection_limits_for, endpoint_of
from .server.router import RootResource
from .server.signals import SignalHandlers
from .server.site import BoundedSite
from .store.interface import StartupCounts
from .store.open import create_store, describe
from .store.postgresql.dsn import Server
from .store.sqlite.file import DatabaseFile
from .webui.chart_panels import ChartCache
from .webui.routes import WebUi
from .worker.pruner import Pruner
from .worker.scheduler import Scheduler

log = Logger(namespace="callme")

GRACE_SECONDS = 10.0
"""How long calls under way may take to finish after SIGTERM."""
RECORD_SECONDS = 2.0
"""How long the records of those cut off then may take."""
BETWEEN_SECONDS = 0.5
"""How often is looked for what other daemons leave, so that nothing is a second late for it."""
FAREWELL_SECONDS = 2.0
"""How long answers under way may take after SIGTERM."""


def startup_message(
    address: str, database: DatabaseFile | Server, node: str, counts: StartupCounts | None
) -> str:
    """Return the one line that says what has started, and what it has found.

    :param address: where it listens, as a person writes it.
    :param node: the daemon's name; empty where it has none yet.
    """
    line = f"callme {__version__} listens on {address}, database {describe(database)}"
    if node:
        line += f", node {node}"
    if counts is None:
        return line
    # What another daemon may be about to call is not missed, and what it calls not interrupted.
    alone = isinstance(database, DatabaseFile)
    due, running = ("missed", "interrupted") if alone else ("due", "running")
    return (
        f"{line}; tasks: {counts.scheduled:,} scheduled, {counts.due:,} of them {due}, "
        f"{counts.running:,} {running}"
    )


def _name(settings: Settings) -> str:
    """Return the daemon's name."""
    return settings.node or f"{socket.gethostname()}:{os.getpid()}"


def freeze_gc() -> None:
    """Let the collector of garbage pass over what was made so far, nearly all of it for good.

    It would look at every module and class again and again, the reactor waiting meanwhile:
    30 ms each time, a tenth of the processor while requests come in.
    """
    gc.collect()
    gc.freeze()


class Daemon(Service):
    """callme as a service: store, scheduler, caller and API.

    :param database: claimed for this process already, where it is a file.
    :param now: the wall clock: seconds since 1970.
    :param gate: decides who may ask.
    :param standing: how the tasks stand, where somebody has looked.
    :ivar key_file: the file of the keys that callbacks are signed with.
    """

    name = "callme"

    def __init__(
        self,
        settings: Settings,
        database: DatabaseFile | Server,
        reactor: Any,
        now: Callable[[], float] = time.time,
        gate: Gate | None = None,
        key_file: SecretFile[SigningKeys] | None = None,
        standing: StartupCounts | None = None,
    ) -> None:
        self._gate = gate or Gate()
        self.key_file = key_file
        self._settings = settings
        self._standing = standing
        self._reactor = reactor
        self._clock = clock = MonotonicClock(reactor)
        registry = CollectorRegistry()
        tally = Counters(registry)
        room, going = connection_limits_for(settings.max_connections, settings.concurrency)
        others = not isinstance(database, DatabaseFile)
        self._store = create_store(database, reactor, self._node, clock)
        self._waits = LongPoll(
            store=self._store, clock=clock, is_shared=others, max_waiters=max(1, room * 3 // 4)
        )
        self._caller = HttpCaller(
            reactor,
            now,
            settings.per_host,
            clock=clock,
            max_idle_connections=settings.concurrency,
            networks=settings.networks,
            keys=lambda: SigningKeys() if key_file is None else key_file.value,
        )
        self._scheduler = Scheduler(
            self._store,
            self._caller,
            Pruner(self._store, clock, now, settings.retention),
            clock,
            now,
            settings.concurrency,
            settings.per_host,
            BETWEEN_SECONDS if others else None,
        )
        for subscriber in (tally.on_changes, self._waits.on_changes, self._scheduler.on_changes):
            self._store.changes.subscribe(subscriber)
        metrics = self._metrics(registry, now)
        outlook = Forecaster(
            store=self._store, capacity=self._scheduler.capacity, clock=clock, now=now
        )
        api = Api(
            store=self._store,
            scheduler=self._scheduler,
            clock=clock,
            now=now,
            metrics=metrics,
            networks=settings.networks,
            long_poll=self._waits,
            forecaster=outlook,
        )
        front = RootResource(api.app.resource(), self._pages(now, outlook).app.resource())
        self._site = BoundedSite(
            front,
            clock,
            self._gate,
            max_connections=room,
            headroom=going,
            idle_seconds=settings.idle_timeout,
            count_refusal=tally.request_refused,
        )
        self._endpoint = endpoint_of(reactor, settings.port)
        self._port: IListeningPort | None = None
        self._database = database
        files = [file for file in (self._gate.file, key_file) if file is not None]
        self._signals = SignalHandlers(reactor, files)

    def _metrics(self, registry: CollectorRegistry, now: Callable[[], float]) -> MetricsExporter:
        return MetricsExporter(
            registry=registry,
            store=self._store,
            health=self._scheduler.health,
            clock=self._clock,
            now=now,
            node=self._node,
            concurrency=self._settings.concurrency,
        )

    def _pages(self, now: Callable[[], float], outlook: Forecaster) -> WebUi:
        file = self._gate.file
        return WebUi(
            store=self._store,
            scheduler=self._scheduler,
            tasks=TaskService(self._store, now),
            charts=ChartCache(store=self._store, forecaster=outlook, clock=self._clock, now=now),
            now=now,
            node=self._node,
            tokens=lambda: None if file is None else file.value,
            logins=LoginThrottle(self._clock.seconds),
        )

    def _node(self) -> str:
        # Asked for each time: twistd goes into the background as another process.
        return _name(self._settings)

    def privilegedStartService(self) -> None:
        # Here, while a port below 1024 may still be taken.
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._signals.install()
        if self._port is None:
            self._listen()
        address = address_of(self._port, self._settings.port)
        line = startup_message(address, self._database, self._node(), self._standing)
        log.info("{line}", line=line)
        self._clock.start()
        self._reactor.callWhenRunning(self._handle_sigterm)
        self._reactor.callWhenRunning(self._scheduler.start)
        # Last: it takes a moment, in which a SIGTERM must find its handler.
        self._reactor.callWhenRunning(freeze_gc)

    def _listen(self) -> None:
        listening = self._endpoint.listen(self._site)
        failures: list[Any] = []

        def listens(port: IListeningPort) -> None:
            self._port = port

        listening.addCallbacks(listens, failures.append)
        if failures:
            failures[0].raiseException()

    def _handle_sigterm(self) -> None:
        """Make SIGTERM a clean end; twistd would report that the signal killed it."""

        def stop(*_: object) -> None:
            # Once is enough: the reactor takes a second time for a mistake.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._reactor.callFromThread(self._reactor.stop)

        signal.signal(signal.SIGTERM, stop)

    def stopService(self) -> Deferred[None]:
        """Stop in the only order in which nothing is lost."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        log.info("callme stops")
        if self._port is not None:
            await defer.maybeDeferred(self._port.stopListening)
        self._waits.close()
        closing = self._site.close().addTimeout(FAREWELL_SECONDS, self._clock)
        closing.addErrback(lambda failure: failure.trap(defer.TimeoutError) and None)
        await self._scheduler.stop(GRACE_SECONDS, RECORD_SECONDS)
        await closing
        await self._caller.close()
        await self._store.close()
        self._clock.stop()
        # Not before: calls were in flight, and the default of these signals is to end them.
        self._signals.restore()
        log.info("callme has stopped")
