"""Pools of connections to PostgreSQL, which reconnect, and which limit the duration of work."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from attrs import define, field
from psycopg import errors
from psycopg.pq import ConnStatus, TransactionStatus
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..interface import StoreUnavailable
from .cursor import Text
from .dsn import SCHEMA
from .setup import NEEDS_SESSIONS, backend_pid

T = TypeVar("T")
_STATEMENT_ERRORS = (
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.DataError,
    psycopg.NotSupportedError,
)
# psycopg classifies these as ProgrammingErrors too. callme's statements fit its schema, so the
# operator or a restore of the database has revoked privileges, or renamed or dropped objects.
_ADMINISTRATION_ERRORS = (
    errors.InsufficientPrivilege,
    errors.InvalidSchemaName,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
)

# The timeouts end long statements, and the sessions of a daemon that was suspended in a transaction
# or has lost its network. The planner must use the index that each statement is written for: its
# statistics are always outdated for a table whose rows change their state all the time, and it
# would sometimes read and sort all due tasks for each claim.
_SESSION = f"""
    SET search_path = {SCHEMA};
    SET statement_timeout = '%ds';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '20s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 10000;
    SET plan_cache_mode = force_custom_plan;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_sort = off;
    SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off';
"""

_TABLE_LOCK = """
    SELECT relation::regclass::text, pid FROM pg_locks
    WHERE locktype = 'relation' AND pid <> pg_backend_pid()
        AND relation IN (to_regclass('task'), to_regclass('attempt'), to_regclass('node'))
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    ORDER BY granted DESC LIMIT 1
"""
_PIDS: WeakKeyDictionary[psycopg.Connection, int] = WeakKeyDictionary()
"""Server process id of each session; for connections through a pooler, libpq reports another."""


def ensure_own_session(connection: psycopg.Connection, pid: int) -> None:
    """Check that all transactions of a connection run in the same session of the server.

    :param pid: the process id of the server process that served a transaction.
    :raises psycopg.OperationalError: if another process served the first transaction.
    """
    if pid != _PIDS[connection]:
        raise psycopg.OperationalError(NEEDS_SESSIONS)


def ensure_no_table_lock(connection: psycopg.Connection) -> None:
    """Check that no whole table is locked against writes, or is about to be.

    :raises psycopg.OperationalError: if a table is locked.
    """
    found = connection.execute(_TABLE_LOCK).fetchone()
    if found is not None:
        table, pid = found
        raise psycopg.OperationalError(f"the table {table} is locked by the process {pid}")


class _ThreadConnection(adbapi.Connection):
    """Connection of one of adbapi's threads.

    Connections are in autocommit mode, so that a single statement needs no BEGIN and COMMIT. Work
    begins and ends its transactions itself.
    """

    _pool: Any

    def __init__(self, pool: Any) -> None:
        # adbapi would connect here, before the timeout of the work applies.
        self._pool = pool
        self._connection: Any = None

    def checkout(self) -> psycopg.Connection:
        """Return the thread's connection, or a new one if that was closed."""
        self._connection = self._pool.connections.get(self._pool.threadID())
        if self._connection is not None and _is_closed(self._connection):
            self.discard()
        if self._connection is None:
            self._connection = self._pool.connect()
        connection: psycopg.Connection = self._connection
        return connection

    def discard(self) -> None:
        """Close the thread's connection; the next checkout opens a new one."""
        if self._connection is not None:
            self._pool.connections.pop(self._pool.threadID(), None)
            self._connection.close()
            self._connection = None

    def commit(self) -> None:
        """Do nothing: work ends its transactions itself."""

    def rollback(self) -> None:
        """Do nothing: work ends its transactions itself."""


def _is_closed(connection: psycopg.Connection) -> bool:
    """Return whether an idle connection was closed, most likely by the server."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    # An idle connection receives only notices, and the error of a server that is shutting down.
    while poll.poll(0):
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            return True
        if connection.pgconn.status != ConnStatus.OK:
            return True
    return False


@define(eq=False)
class AbandonedCommits:
    """Sessions whose work was cancelled, although the server may still be committing it.

    Neither a timeout of the server nor a closed connection ends a commit that waits for a
    synchronous standby. If callme continued to write, each attempt would leave such a session
    behind, until the server has no connection left.
    """

    _pids: frozenset[int] = field(default=frozenset(), init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def add(self, pid: int) -> None:
        """Record a session."""
        with self._lock:
            self._pids |= {pid}

    def ensure_none(self, connection: psycopg.Connection) -> None:
        """Remove the sessions that have ended.

        :raises psycopg.OperationalError: if a commit is still waiting.
        """
        pids = self._pids
        if not pids:
            return
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = ANY(%s)",
            (list(pids),),
        ).fetchall()
        with self._lock:
            self._pids -= pids - {pid for (pid,) in found}
        if found:
            raise psycopg.OperationalError("a commit waits for a synchronous standby")


class _Work:
    """Unit of work on a connection, which another thread may cancel."""

    def __init__(self, seconds: float, abandoned: AbandonedCommits) -> None:
        self._seconds = seconds
        self._abandoned = abandoned
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._is_cancelled = False

    def run(self, thread: _ThreadConnection, work: Callable[[psycopg.Connection], T]) -> T:
        """Run the work, in a thread of the pool."""
        connection = thread.checkout()
        try:
            with self._lock:
                self._raise_if_cancelled()
                self._connection = connection
            self._abandoned.ensure_none(connection)
            return work(connection)
        except psycopg.Error as error:
            if isinstance(error, errors.ReadOnlySqlTransaction):
                # The server is or was a standby. A new connection searches for a server that
                # accepts writes.
                connection.close()
            with self._lock:
                self._connection = None
                self._raise_if_cancelled(error)
            raise
        finally:
            with self._lock:
                self._connection = None
            if not _is_reusable(connection):
                thread.discard()

    def _raise_if_cancelled(self, error: Exception | None = None) -> None:
        if self._is_cancelled:
            raise psycopg.OperationalError(f"no response within {self._seconds:g} s") from error

    def cancel(self) -> None:
        """Shut down the socket, so that the work fails."""
        with self._lock:
            self._is_cancelled = True
            if self._connection is None or self._connection.closed:
                return
            self._abandoned.add(_PIDS[self._connection])
            # The connection may end at this very moment.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(self._connection.fileno())) as wire,
            ):
                wire.shutdown(socket.SHUT_RDWR)


def _is_reusable(connection: psycopg.Connection) -> bool:
    """Return whether a connection can be used again, after a rollback of an open transaction."""
    if connection.closed:
        return False
    status = connection.info.transaction_status
    if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            return False
        status = connection.info.transaction_status
    return status == TransactionStatus.IDLE


class Connections:
    """Pool of connections, each in a thread of its own.

    :param size: the maximum number of connections.
    :param seconds: the time limit of a unit of work. It exceeds the server's limit of a statement,
        so that only work on an unresponsive server reaches it.
    :param clock: schedules the timers.
    :param abandoned: records cancelled work; while one of its commits is still in progress, all
        further work fails.
    :param on_open: called with each new connection.
    """

    def __init__(
        self,
        *,
        conninfo: str,
        size: int,
        seconds: int,
        reactor: IReactorTime,
        clock: IReactorTime,
        abandoned: AbandonedCommits | None = None,
        on_open: Callable[[psycopg.Connection], object] = lambda _: None,
    ) -> None:
        self._abandoned = abandoned or AbandonedCommits()
        self._seconds = seconds
        self._clock = clock
        self._on_open = on_open
        self._running: set[_Work] = set()
        self._pool = adbapi.ConnectionPool(
            "psycopg",
            conninfo,
            cp_min=1,
            cp_max=size,
            cp_openfun=self._open,
            cp_reactor=reactor,
            cp_noisy=False,
            autocommit=True,
            # A connection pooler may move transactions between sessions.
            prepare_threshold=None,
        )
        self._pool.connectionFactory = _ThreadConnection

    def _open(self, connection: psycopg.Connection) -> None:
        try:
            connection.adapters.register_loader("bytea", Text)
            connection.execute((_SESSION % max(1, self._seconds - 5)).encode())
            _PIDS[connection] = backend_pid(connection)
            self._on_open(connection)
        except BaseException:
            connection.close()
            raise

    def run(self, work: Callable[[psycopg.Connection], T]) -> Deferred[T]:
        """Run work on a connection, in another thread.

        The Deferred fails with :class:`StoreUnavailable` for a fault of the database, and with
        psycopg's error for a fault of the statement.
        """
        piece = _Work(self._seconds, self._abandoned)
        self._running.add(piece)
        timer = self._clock.callLater(self._seconds, piece.cancel)

        def ended(result: T) -> T:
            self._running.discard(piece)
            if timer.active():
                timer.cancel()
            return result

        running: Deferred[T] = self._pool.runWithConnection(piece.run, work)
        return running.addBoth(ended).addErrback(_unavailable)

    def close(self) -> None:
        """Cancel the work in progress, and close the connections."""
        for piece in self._running:
            piece.cancel()
        self._pool.close()


def _unavailable(failure: Failure) -> Failure:
    """Raise StoreUnavailable if the database, not the statement, is at fault.

    Its text is the primary message only: the server's details quote the row that violates a
    constraint, including payload and headers.
    """
    error = failure.value
    if not isinstance(error, psycopg.Error):
        return failure
    message = " ".join((error.diag.message_primary or str(error)).split())
    repeated = type(error)(message)
    if isinstance(error, _STATEMENT_ERRORS) and not isinstance(error, _ADMINISTRATION_ERRORS):
        raise repeated from None
    # The engine examines the cause to decide whether every operation would fail with this error.
    raise StoreUnavailable(f"the database cannot be used: {message}") from repeated
