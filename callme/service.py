"""The composition of the daemon: its parts, and the order in which they start and stop."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from . import __version__
from .api.hosts import HostService
from .api.long_poll import LongPoll
from .api.routes import Api
from .api.task_service import TaskService
from .caller.call import HttpCaller
from .caller.tls import TLSContexts
from .config import Settings
from .metrics.counters import Counters
from .metrics.exporter import MetricsExporter
from .process.allocator import release_free_memory
from .process.monotonic_clock import MonotonicClock
from .process.service_manager import ServiceManager
from .process.signals import SignalHandlers
from .process.turns import TurnMonitor
from .reports.audit_log import AuditLog
from .reports.forecast import Forecaster
from .security.login_throttle import LoginThrottle
from .security.secret_file import SecretFile
from .security.signing import SigningKeys
from .security.tokens import Tokens
from .server.auth import Gate
from .server.listen import address_of, connection_limits_for, endpoint_of
from .server.paths import BasePath
from .server.router import RootResource
from .server.site import BoundedSite
from .store.database import Store
from .store.interface import StartupCounts
from .store.open import create_store, describe
from .store.postgresql.dsn import Server
from .store.sqlite.file import DatabaseFile
from .webui.chart_panels import ChartCache
from .webui.routes import WebUi
from .worker.dispatcher import Caller
from .worker.pruner import Pruner
from .worker.scheduler import Housekeeping, Scheduler
from .worker.scrubber import Scrubber
from .worker.slots import Slots

log = Logger(namespace="callme")

FLUSH_SECONDS = 2.0
"""Time limit in seconds for storing the results of calls that were cancelled at shutdown."""
RESPONSE_SECONDS = 2.0
"""Time limit in seconds for responses in progress after SIGTERM."""
POLL_SECONDS = 0.5
"""Interval in seconds between polls of a shared database, short enough for calls on time."""


def startup_message(
    address: str, database: DatabaseFile | Server, node: str, counts: StartupCounts | None
) -> str:
    """Return the log line at the start, with the numbers of tasks in the database.

    :param address: the address that the daemon listens on, for people.
    :param node: the daemon's name; empty if it is not known yet.
    """
    line = f"callme {__version__} listens on {address}, database {describe(database)}"
    if node:
        line += f", node {node}"
    if counts is None:
        return line
    # On a shared database, another daemon may call due tasks in time, and its calls still run.
    alone = isinstance(database, DatabaseFile)
    due, running = ("missed", "interrupted") if alone else ("due", "running")
    return (
        f"{line}; tasks: {counts.scheduled:,} scheduled, {counts.due:,} of them {due}, "
        f"{counts.running:,} {running}"
    )


YOUNG_OBJECTS = 10_000
"""Number of new objects that triggers a collection of the youngest generation."""


def tune_gc() -> None:
    """Exempt existing objects from garbage collection, because nearly all of them are permanent.

    Otherwise each collection traverses every module and class, which blocks the reactor for 30 ms,
    and takes a tenth of the processor time under load.

    The youngest generation is also collected more rarely, because nearly all of its objects belong
    to requests and calls in flight, and are not garbage yet.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


@frozen(kw_only=True, eq=False)
class Environment:
    """Settings and external dependencies of the parts: database, network and clocks.

    :ivar store: the store of tasks.
    :ivar caller: makes the calls.
    :ivar clock: schedules timers.
    :ivar now: returns the wall-clock time: seconds since 1970.
    :ivar node: returns the daemon's name.
    :ivar gate: authorizes requests.
    :ivar tokens: returns the tokens that open a session; ``None`` if no login is required.
    :ivar is_shared: whether other daemons use the same database.
    :ivar longest_turn: returns the longest turn of the reactor in seconds, if known.
    """

    settings: Settings
    store: Store
    caller: Caller
    clock: IReactorTime
    now: Callable[[], float]
    node: Callable[[], str]
    gate: Gate = field(factory=Gate)
    tokens: Callable[[], Tokens | None] = lambda: None
    is_shared: bool = False
    longest_turn: Callable[[], float | None] = lambda: None


@frozen(kw_only=True, eq=False)
class Parts:
    """Parts of a daemon, which :func:`build` connects.

    :ivar site: serves the API and the web UI.
    """

    store: Store
    caller: Caller
    audit: AuditLog
    long_poll: LongPoll
    scheduler: Scheduler
    metrics: MetricsExporter
    api: Api
    site: BoundedSite


def build(environment: Environment) -> Parts:
    """Build and connect the parts of a daemon, without starting them."""
    settings, store = environment.settings, environment.store
    clock, now = environment.clock, environment.now
    store.on_failure = settings.on_failure
    registry = CollectorRegistry()
    counters = Counters(registry)
    connections, headroom = connection_limits_for(settings.max_connections, settings.concurrency)
    long_poll = LongPoll(
        store=store,
        clock=clock,
        is_shared=environment.is_shared,
        max_waiters=max(1, connections * 3 // 4),
    )
    scheduler = _scheduler(environment)
    for subscriber in (counters, long_poll, scheduler):
        store.changes.subscribe(subscriber.on_changes)
    audit = AuditLog(now)
    forecaster = Forecaster(store=store, capacity=scheduler.capacity, clock=clock, now=now)
    metrics = _metrics(environment, registry, scheduler)
    # The API and the web UI share these, so that the locks in them bound the work of both.
    tasks = TaskService(store=store, now=now, audit=audit)
    hosts = HostService(store=store, scheduler=scheduler, audit=audit)
    api = Api(
        store=store,
        scheduler=scheduler,
        clock=clock,
        now=now,
        audit=audit,
        metrics=metrics,
        networks=settings.networks,
        long_poll=long_poll,
        forecaster=forecaster,
        task_service=tasks,
        hosts=hosts,
    )
    webui = _webui(environment, scheduler, forecaster, tasks, hosts)
    site = BoundedSite(
        RootResource(api.resource(), webui.app.resource()),
        clock,
        environment.gate,
        max_connections=connections,
        headroom=headroom,
        idle_seconds=settings.idle_timeout,
        count_refusal=counters.request_refused,
    )
    site.base_path = BasePath(settings.base_path)
    return Parts(
        store=store,
        caller=environment.caller,
        audit=audit,
        long_poll=long_poll,
        scheduler=scheduler,
        metrics=metrics,
        api=api,
        site=site,
    )


def _scheduler(environment: Environment) -> Scheduler:
    settings, store = environment.settings, environment.store
    clock, now = environment.clock, environment.now
    return Scheduler(
        store=store,
        caller=environment.caller,
        housekeeping=Housekeeping(
            pruner=Pruner(store=store, clock=clock, now=now, retention_days=settings.retention),
            scrubber=Scrubber(store=store, clock=clock),
            release_memory=release_free_memory,
        ),
        clock=clock,
        now=now,
        slots=Slots(concurrency=settings.concurrency, per_host=settings.per_host),
        node=environment.node,
        poll_seconds=POLL_SECONDS if environment.is_shared else None,
    )


def _metrics(
    environment: Environment, registry: CollectorRegistry, scheduler: Scheduler
) -> MetricsExporter:
    return MetricsExporter(
        registry=registry,
        store=environment.store,
        health=scheduler.health,
        clock=environment.clock,
        now=environment.now,
        node=environment.node,
        concurrency=environment.settings.concurrency,
        longest_turn=environment.longest_turn,
    )


def _webui(
    environment: Environment,
    scheduler: Scheduler,
    forecaster: Forecaster,
    tasks: TaskService,
    hosts: HostService,
) -> WebUi:
    store, clock, now = environment.store, environment.clock, environment.now
    return WebUi(
        store=store,
        scheduler=scheduler,
        tasks=tasks,
        hosts=hosts,
        charts=ChartCache(store=store, forecaster=forecaster, clock=clock, now=now),
        clock=clock,
        now=now,
        node=environment.node,
        tokens=environment.tokens,
        logins=LoginThrottle(clock.seconds),
        networks=environment.settings.networks,
        origins=environment.gate.origins,
    )


class Daemon(Service):
    """Twisted service that starts the parts, listens, and stops both.

    :param database: the opened database; this process has locked a file.
    :param now: returns the wall-clock time: seconds since 1970.
    :param gate: authorizes requests.
    :param startup_counts: the counts for the startup message, if known.
    :param contexts: the contexts of TLS connections to endpoints.
    :ivar key_file: the file of the keys that sign callbacks.
    :ivar parts: the parts.
    """

    name = "callme"

    def __init__(
        self,
        settings: Settings,
        database: DatabaseFile | Server,
        reactor: Any,
        *,
        now: Callable[[], float] = time.time,
        gate: Gate | None = None,
        key_file: SecretFile[SigningKeys] | None = None,
        contexts: TLSContexts | None = None,
        startup_counts: StartupCounts | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._reactor = reactor
        self._gate = gate or Gate()
        self.key_file = key_file
        self._startup_counts = startup_counts
        self._clock = clock = MonotonicClock(reactor)
        self._turns = TurnMonitor()
        token_file = self._gate.file
        caller = HttpCaller(
            reactor,
            now,
            settings.per_host,
            clock=clock,
            max_idle_connections=settings.concurrency,
            networks=settings.networks,
            keys=lambda: SigningKeys() if key_file is None else key_file.value,
            contexts=contexts,
            proxies=settings.proxy,
        )
        self.parts = build(
            Environment(
                settings=settings,
                store=create_store(database, reactor, self._node, clock),
                caller=caller,
                clock=clock,
                now=now,
                node=self._node,
                gate=self._gate,
                tokens=lambda: None if token_file is None else token_file.value,
                is_shared=not isinstance(database, DatabaseFile),
                longest_turn=self._turns.longest_seconds,
            )
        )
        self._endpoint = endpoint_of(reactor, settings.port)
        self._manager = ServiceManager(
            clock=clock, makes_progress=self.parts.scheduler.makes_progress
        )
        self._port: IListeningPort | None = None
        files: list[SecretFile[Any]] = [file for file in (token_file, key_file) if file is not None]
        if contexts is not None:
            files += contexts.files
        self._signals = SignalHandlers(reactor, files)

    def _node(self) -> str:
        # The process id changes when twistd goes into the background.
        return self._settings.node or f"{socket.gethostname()}:{os.getpid()}"

    def privilegedStartService(self) -> None:
        # Only here does the process still have the privilege to bind a port below 1024.
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._handle_signals()
        if self._port is None:
            self._listen()
        address = address_of(self._port, self._settings.port)
        line = startup_message(address, self._database, self._node(), self._startup_counts)
        log.info("{line}", line=line)
        self._clock.start()
        self._reactor.callWhenRunning(self._turns.install, self._reactor)
        self._reactor.callWhenRunning(self.parts.scheduler.start)
        self._reactor.callWhenRunning(self._manager.ready, f"listens on {address}")
        # This is last because it takes a moment, and the handler of SIGTERM must already be
        # installed.
        self._reactor.callWhenRunning(tune_gc)

    def _listen(self) -> None:
        listening = self._endpoint.listen(self.parts.site)
        failures: list[Any] = []

        def listens(port: IListeningPort) -> None:
            self._port = port

        listening.addCallbacks(listens, failures.append)
        if failures:
            failures[0].raiseException()

    def _handle_signals(self) -> None:
        self._signals.install()
        # The handler is installed when the reactor runs, because the reactor replaces it at its
        # start.
        self._reactor.callWhenRunning(self._handle_sigterm)

    def _handle_sigterm(self) -> None:
        """Make SIGTERM a normal exit; by default, twistd exits as if the signal had killed it."""

        def stop(*_: object) -> None:
            # A second SIGTERM is ignored, because stopping the reactor twice is an error.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._reactor.callFromThread(self._reactor.stop)

        signal.signal(signal.SIGTERM, stop)

    def stopService(self) -> Deferred[None]:
        """Stop the parts in an order that loses nothing.

        :return: a Deferred that fires when everything has stopped.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        log.info("callme stops")
        self._manager.stopping()
        if self._port is not None:
            await defer.maybeDeferred(self._port.stopListening)
        self.parts.long_poll.close()
        closing = self.parts.site.close().addTimeout(RESPONSE_SECONDS, self._clock)
        closing.addErrback(lambda failure: failure.trap(defer.TimeoutError) and None)
        await self.parts.scheduler.stop(self._settings.grace, FLUSH_SECONDS)
        await closing
        self.parts.audit.flush()
        closing = self.parts.caller.close().addTimeout(RESPONSE_SECONDS, self._clock)
        await closing.addErrback(lambda failure: failure.trap(defer.TimeoutError) and None)
        await self.parts.store.close()
        self._manager.close()
        self._turns.uninstall(self._reactor)
        self._clock.stop()
        # The default action of these signals ends the process, so they are handled until now.
        self._signals.restore()
        log.info("callme has stopped")
