"""The daemon put together: what is made, what is started, what is stopped, in which order."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger

from . import __version__
from .access import Gate
from .api.changes import Changes
from .api.endpoints import Api
from .caller.http import HttpCaller
from .clock import SteadyClock
from .core.signing import SigningKeys
from .crowd import GOING
from .descriptors import raise_limit, share_of_a_rush, share_of_clients, wanted_for
from .hindsight import Hindsight
from .metrics.page import MetricsPage
from .metrics.tally import Tally
from .options import Options, Settings
from .outlook import Outlook
from .pages.drawn import HOURS
from .pages.endpoints import Pages
from .pages.front import Front
from .probe import CannotListen, try_port
from .retention import Retention
from .scheduler import Scheduler
from .secret_file import SecretFile, UnusableFile, keys_in, tokens_in
from .site import BoundedSite
from .store.port import CannotOpen, Standing, Store
from .store.postgresql.server import Server, is_url
from .store.sqlite.database import DatabaseFile, open_database
from .store.sqlite.database import standing as standing_in_file
from .store.sqlite.store import SqliteStore
from .store.watched import WatchedStore
from .waits import Waits

__all__ = ["Daemon", "Options", "makeService"]

log = Logger(namespace="callme")

GRACE_SECONDS = 10.0
"""How long calls under way may take to finish after SIGTERM."""
RECORD_SECONDS = 2.0
"""How long the records of those cut off then may take."""
BACKLOG = 1024
"""Clients that may wait to be let in; the kernel's own limit (net.core.somaxconn) may be lower."""
BETWEEN_SECONDS = 0.5
"""How often is looked for what other daemons leave, so that nothing is a second late for it."""
FAREWELL_SECONDS = 2.0
"""How long answers under way may take after SIGTERM."""


def makeService(options: Options) -> Daemon:
    """Return the daemon, once it is certain that it can start.

    Twistd calls this before it goes into the background: what is wrong is said
    in one line on the terminal, and the exit status is 1.
    """
    # Here, so that to import this module installs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    settings = options.settings
    assert settings is not None, "options must have been parsed"
    twistd: Mapping[str, Any] = options.parent or {}
    if twistd.get("chroot"):
        # Files, the database's among them, would have other paths from then on, and libraries
        # load parts of themselves, and of the system, when they need them.
        raise SystemExit("callme: callme cannot run under twistd's --chroot: use a container")
    # twistd changes to its --rundir only after this.
    rundir = twistd.get("rundir", ".")
    try:
        exposed = try_port(settings.port)
        gate = _gate(settings, exposed, rundir)
        key_file = _key_file(settings, rundir)
        database = _open(settings, options, rundir)
        standing = _standing(database)
    except (CannotOpen, CannotListen, UnusableFile) as error:
        raise SystemExit(f"callme: {error}") from None
    if options.parent and not options.parent.get("nodaemon", True):
        # twistd is about to leave the terminal, and to become another process: what it logs
        # does not show there, and the name that it will have is not known here.
        print(_start_line(settings.port, database, settings.node, standing))  # noqa: T201
    return Daemon(settings, database, reactor, gate=gate, key_file=key_file, standing=standing)


def _gate(settings: Settings, exposed: bool, rundir: str) -> Gate:
    """Return what decides who may ask.

    :param exposed: whether other machines may reach the port.
    """
    if settings.token_file is not None:
        return Gate(tokens_in(Path(rundir, settings.token_file).absolute()))
    if exposed and not settings.no_auth:
        raise CannotListen(
            f"{settings.port} may be reached from other machines: give a --token-file, or "
            "--no-auth if whoever reaches it may ask"
        )
    return Gate(any_host=exposed)


def _key_file(settings: Settings, rundir: str) -> SecretFile[SigningKeys] | None:
    if settings.signing_key_file is None:
        return None
    return keys_in(Path(rundir, settings.signing_key_file).absolute())


def _open(settings: Settings, options: Options, rundir: str) -> DatabaseFile | Server:
    if is_url(settings.database):
        try:
            # Only who asks for PostgreSQL needs psycopg.
            from .store.postgresql.database import open_server  # noqa: PLC0415
        except ImportError as error:
            raise CannotOpen(
                f"--database postgresql://... needs psycopg ({error}): "
                "pip install 'callme[postgresql]'"
            ) from error
        return open_server(settings.database, settings.node or None)
    database = open_database(Path(rundir, settings.database))
    _give_to(options, database.path)
    return database


def _store(
    database: DatabaseFile | Server,
    reactor: Any,
    node: Callable[[], str],
    clock: IReactorTime,
    committed: Callable[[int], None],
) -> Store:
    if isinstance(database, DatabaseFile):
        return SqliteStore(database, reactor, node, clock, committed)
    from .store.postgresql.store import PostgresqlStore  # noqa: PLC0415 - as above

    return PostgresqlStore(database, reactor, node, clock, committed)


def _standing(database: DatabaseFile | Server) -> Standing:
    if isinstance(database, DatabaseFile):
        return standing_in_file(database, time.time())
    from .store.postgresql.database import standing  # noqa: PLC0415 - as above

    return standing(database, time.time())


def _described(database: DatabaseFile | Server) -> str:
    """Return what the log says of a database."""
    if isinstance(database, DatabaseFile):
        return f"{database.path} (SQLite {sqlite3.sqlite_version})"
    return f"{database.shown} (PostgreSQL {database.version})"


def _start_line(
    address: str, database: DatabaseFile | Server, node: str, standing: Standing | None
) -> str:
    """Return the one line that says what has started, and what it has found.

    :param address: where it listens, as a person writes it.
    :param node: the daemon's name; empty where it has none yet.
    """
    line = f"callme {__version__} listens on {address}, database {_described(database)}"
    if node:
        line += f", node {node}"
    if standing is None:
        return line
    # What another daemon may be about to call is not missed, and what it calls not interrupted.
    alone = isinstance(database, DatabaseFile)
    due, running = ("missed", "interrupted") if alone else ("due", "running")
    return (
        f"{line}; tasks: {standing.scheduled:,} scheduled, {standing.due:,} of them {due}, "
        f"{standing.running:,} {running}"
    )


def _name(settings: Settings) -> str:
    """Return the daemon's name."""
    return settings.node or f"{socket.gethostname()}:{os.getpid()}"


def _give_to(options: Options, path: Path) -> None:
    """Give the database to the user that twistd will run as, if it is told one."""
    uid, gid = (options.parent["uid"], options.parent["gid"]) if options.parent else (None, None)
    if uid is not None or gid is not None:
        try:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        except OSError as error:
            raise CannotOpen(f"{path} cannot be given to another user: {error.strerror}") from error


def _address(port: IListeningPort | None, description: str) -> str:
    """Return where somebody listens, as a person writes it."""
    address: Any = None if port is None else port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def _leave_to_stay() -> None:
    """Let the collector of garbage pass over what was made so far, nearly all of it for good.

    It would look at every module and class again and again, the reactor waiting meanwhile:
    30 ms each time, a tenth of the processor while requests come in.
    """
    gc.collect()
    gc.freeze()


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return where to listen, with room for a rush of clients unless the description says how much.

    With Twisted's room for fifty, a thousand that come at once wait for some twenty seconds:
    the kernel lets each try again only after one.
    """
    kind, _, rest = description.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "unix"):
        # Of two that are named the last counts; one without a name cannot be given twice.
        with suppress(TypeError):
            return _server(reactor, f"{kind}:backlog={BACKLOG}:{rest}")
    return _server(reactor, description)


def _server(reactor: Any, description: str) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def _room(settings: Settings) -> tuple[int, int]:
    """See to it that there are descriptors for clients.

    :return: how many there can be, and how many more while others are being closed for them.
    """
    asked = settings.max_connections
    limit = raise_limit(wanted_for(asked, settings.concurrency))
    room = share_of_clients(asked, settings.concurrency, limit)
    if room < asked:
        log.warn(
            "{limit} files may be open: enough for {room} clients, not for the {asked} of "
            "--max-connections (see ulimit -Hn)",
            limit=limit,
            room=room,
            asked=asked,
        )
    return room, max(GOING, share_of_a_rush(room, settings.concurrency, limit))


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
        standing: Standing | None = None,
    ) -> None:
        self._gate = gate or Gate()
        self.key_file = key_file
        self._settings = settings
        self._standing = standing
        self._reactor = reactor
        self._clock = clock = SteadyClock(reactor)
        registry = CollectorRegistry()
        tally = Tally(registry)
        room, going = _room(settings)
        others = not isinstance(database, DatabaseFile)
        store = _store(database, reactor, self._node, clock, tally.committed)
        self._waits = Waits(store, clock, others, max(1, room * 3 // 4))
        self._store = WatchedStore(store, self._waits)
        self._caller = HttpCaller(
            reactor,
            now,
            settings.per_host,
            clock=clock,
            most_unused=settings.concurrency,
            networks=settings.networks,
            keys=lambda: SigningKeys() if key_file is None else key_file.content,
        )
        self._scheduler = Scheduler(
            self._store,
            self._caller,
            Retention(self._store, clock, now, settings.retention),
            clock,
            now,
            settings.concurrency,
            settings.per_host,
            BETWEEN_SECONDS if others else None,
        )
        self._scheduler.observe(tally)
        metrics = self._metrics(registry, now)
        outlook = Outlook(self._store, self._scheduler.capacity, clock, now)
        api = Api(
            self._store,
            self._scheduler,
            clock,
            now,
            metrics,
            settings.networks,
            self._waits,
            outlook,
        )
        front = Front(api.app.resource(), self._pages(now, outlook).app.resource())
        self._site = BoundedSite(front, clock, self._gate, room, going=going)
        self._endpoint = _endpoint(reactor, settings.port)
        self._port: IListeningPort | None = None
        self._database = database
        self._before_hup: Any = None

    def _metrics(self, registry: CollectorRegistry, now: Callable[[], float]) -> MetricsPage:
        return MetricsPage(
            registry,
            self._store,
            self._scheduler.health,
            self._clock,
            now,
            self._node,
            self._settings.concurrency,
        )

    def _pages(self, now: Callable[[], float], outlook: Outlook) -> Pages:
        file = self._gate.file
        hindsight = {hours: Hindsight(self._store, self._clock, now, hours) for hours in HOURS}
        return Pages(
            self._store,
            self._scheduler,
            Changes(self._store, self._scheduler, now),
            outlook,
            hindsight,
            now,
            self._node,
            lambda: None if file is None else file.content,
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
        if self._port is None:
            self._listen()
        address = _address(self._port, self._settings.port)
        line = _start_line(address, self._database, self._node(), self._standing)
        log.info("{line}", line=line)
        self._clock.start()
        self._reactor.callWhenRunning(self._handle_signals)
        self._reactor.callWhenRunning(self._scheduler.start)
        # Last: it takes a moment, in which a SIGTERM must find its handler.
        self._reactor.callWhenRunning(_leave_to_stay)

    def _listen(self) -> None:
        listening = self._endpoint.listen(self._site)
        failures: list[Any] = []

        def listens(port: IListeningPort) -> None:
            self._port = port

        listening.addCallbacks(listens, failures.append)
        if failures:
            failures[0].raiseException()

    def _handle_signals(self) -> None:
        """Let SIGTERM be a good end: twistd would report that it was killed by a signal.

        SIGHUP, which twistd leaves to its default (to die), has files of secrets read again.
        """

        def stop(*_: object) -> None:
            # Once is enough: the reactor takes a second time for a mistake.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._reactor.callFromThread(self._reactor.stop)

        signal.signal(signal.SIGTERM, stop)
        files = [file for file in (self._gate.file, self.key_file) if file is not None]

        def read_again(*_: object) -> None:
            for file in files:
                self._reactor.callFromThread(file.reload)

        if files:
            self._before_hup = signal.signal(signal.SIGHUP, read_again)

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
        # Not before: its default is to die, and calls were under way.
        if self._before_hup is not None:
            signal.signal(signal.SIGHUP, self._before_hup)
            self._before_hup = None
        log.info("callme has stopped")
