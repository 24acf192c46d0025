"""The daemon put together: what is made, what is started, what is stopped, in which order."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import __version__
from .api.endpoints import Api
from .caller.http import HttpCaller
from .core.signing import SigningKeys
from .key_file import KeyFile
from .options import Options, Settings
from .retention import Retention
from .scheduler import Scheduler
from .secret_file import UnusableFile
from .site import BoundedSite
from .store.sqlite.database import CannotOpen, DatabaseFile, open_database
from .store.sqlite.store import SqliteStore

__all__ = ["Daemon", "Options", "makeService"]

log = Logger(namespace="callme")

GRACE_SECONDS = 10.0
"""How long calls under way may take to finish after SIGTERM."""
RECORD_SECONDS = 2.0
"""How long the records of those cut off then may take."""
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
    # twistd changes to its --rundir only after this.
    rundir = options.parent["rundir"] if options.parent else "."
    try:
        _check_port(settings.port)
        key_file = _key_file(settings, rundir)
        database = open_database(Path(rundir, settings.database))
        _give_to(options, database.path)
    except (CannotOpen, UnusableFile) as error:
        raise SystemExit(f"callme: {error}") from None
    return Daemon(settings, database, reactor, key_file=key_file)


def _key_file(settings: Settings, rundir: str) -> KeyFile | None:
    if settings.signing_key_file is None:
        return None
    return KeyFile(Path(rundir, settings.signing_key_file).absolute())


def _give_to(options: Options, path: Path) -> None:
    """Give the database to the user that twistd will run as, if it is told one."""
    uid, gid = (options.parent["uid"], options.parent["gid"]) if options.parent else (None, None)
    if uid is not None or gid is not None:
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)


def _check_port(description: str) -> None:
    """Find out whether something can be listened on, by taking it and letting it go."""
    failures: list[Failure] = []
    try:
        listening = serverFromString(_Probe(), description).listen(Factory())
    except AttributeError:
        # An endpoint that wants more of a reactor than the probe has speaks for itself.
        return
    listening.addErrback(failures.append)
    for failure in failures:
        error = failure.value
        if not isinstance(error, (OSError, OverflowError)):
            failure.raiseException()
        why = getattr(error, "strerror", None) or str(error)
        raise CannotOpen(f"cannot listen on {description}: {why}")


class _Probe:
    """As much of a reactor as an endpoint needs to listen, which only tries."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((interface, port))
            trial.listen()

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            if not os.path.lexists(address):
                trial.bind(address)
                os.unlink(address)
            elif trial.connect_ex(address) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            elif not stat.S_ISSOCK(os.stat(address).st_mode):
                raise OSError(errno.EEXIST, "there is something that is no socket")


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


class Daemon(Service):
    """callme as a service: store, scheduler, caller and API.

    :param database: claimed for this process already.
    :param now: the wall clock: seconds since 1970.
    :ivar key_file: the keys that callbacks are signed with.
    """

    name = "callme"

    def __init__(
        self,
        settings: Settings,
        database: DatabaseFile,
        reactor: Any,
        now: Callable[[], float] = time.time,
        key_file: KeyFile | None = None,
    ) -> None:
        self.key_file = key_file
        self._settings = settings
        self._reactor = reactor
        self._store = SqliteStore(database, reactor)
        self._caller = HttpCaller(
            reactor,
            now,
            settings.per_host,
            networks=settings.networks,
            keys=lambda: SigningKeys() if key_file is None else key_file.keys,
        )
        self._scheduler = Scheduler(
            self._store,
            self._caller,
            Retention(self._store, reactor, now, settings.retention),
            reactor,
            now,
            settings.concurrency,
            settings.per_host,
        )
        api = Api(self._store, self._scheduler, reactor, now, settings.networks)
        self._site = BoundedSite(api.app.resource(), reactor)
        self._endpoint = serverFromString(reactor, settings.port)
        self._port: IListeningPort | None = None
        self._database = database

    def privilegedStartService(self) -> None:
        # Here, while a port below 1024 may still be taken.
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        if self._port is None:
            self._listen()
        log.info(
            "callme {version} listens on {address}, database {database} (SQLite {sqlite})",
            version=__version__,
            address=_address(self._port, self._settings.port),
            database=str(self._database.path),
            sqlite=sqlite3.sqlite_version,
        )
        self._reactor.callWhenRunning(self._handle_sigterm)
        self._reactor.callWhenRunning(self._scheduler.start)
        _leave_to_stay()

    def _listen(self) -> None:
        listening = self._endpoint.listen(self._site)
        failures: list[Any] = []

        def listens(port: IListeningPort) -> None:
            self._port = port

        listening.addCallbacks(listens, failures.append)
        if failures:
            failures[0].raiseException()

    def _handle_sigterm(self) -> None:
        """Let SIGTERM be a good end: twistd would report that it was killed by a signal."""

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
        closing = self._site.close().addTimeout(FAREWELL_SECONDS, self._reactor)
        closing.addErrback(lambda failure: failure.trap(defer.TimeoutError) and None)
        await self._scheduler.stop(GRACE_SECONDS, RECORD_SECONDS)
        await closing
        await self._caller.close()
        await self._store.close()
        log.info("callme has stopped")
