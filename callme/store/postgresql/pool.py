"""Connections to PostgreSQL, through adbapi: replaced when they end, given up when they hang."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..interface import StoreUnavailable
from .cursor import Text
from .dsn import SCHEMA

T = TypeVar("T")
_AT_FAULT_IS_THE_STATEMENT = (
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.DataError,
    psycopg.NotSupportedError,
)

# What one session may take of the server, and how soon the server gives up a daemon that is
# silent: frozen in the middle of a transaction, or behind a network that is gone. Each statement
# has its index, in the order that it wants. Left to itself the server would now and then gather
# all that is due and sort it, for each claim: its statistics of a table whose rows change their
# state all the time are never right.
_SESSION = f"""
    SET search_path = {SCHEMA};
    SET statement_timeout = '%ds';
    SET lock_timeout = '10s';
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


class _Link(adbapi.Connection):
    """What adbapi gives to whoever runs in one of its threads.

    Transactions are begun and ended where the work is done: psycopg's connections
    are in autocommit, and a statement that stands alone costs no more than itself.
    """

    _pool: Any

    def __init__(self, pool: Any) -> None:
        # adbapi would connect here, outside of every deadline of ours.
        self._pool = pool
        self._connection: Any = None

    def live(self) -> psycopg.Connection:
        """Return the thread's connection: a new one where the last one has ended."""
        self._connection = self._pool.connections.get(self._pool.threadID())
        if self._connection is not None and _has_ended(self._connection):
            self.drop()
        if self._connection is None:
            self._connection = self._pool.connect()
        connection: psycopg.Connection = self._connection
        return connection

    def drop(self) -> None:
        """Close the thread's connection; the next one to ask gets a new one."""
        if self._connection is not None:
            self._pool.connections.pop(self._pool.threadID(), None)
            self._connection.close()
            self._connection = None

    def commit(self) -> None:
        """Do nothing: the work has."""

    def rollback(self) -> None:
        """Do nothing: the work has."""


def _has_ended(connection: psycopg.Connection) -> bool:
    """Whether a connection that nobody uses has been closed, by the server most likely."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    # What comes unasked is notices, and the last words of a server that shuts down.
    while poll.poll(0):
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            return True
        if connection.pgconn.status != ConnStatus.OK:
            return True
    return False


class _Work:
    """One piece of work on a connection, which another thread may cut off."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._cut_off = False

    def run(self, link: _Link, work: Callable[[psycopg.Connection], T]) -> T:
        """Do it, in a thread of the pool's."""
        connection = link.live()
        try:
            with self._lock:
                self._raise_if_cut_off()
                self._connection = connection
            return work(connection)
        except psycopg.Error as error:
            with self._lock:
                self._connection = None
                self._raise_if_cut_off(error)
            raise
        finally:
            with self._lock:
                self._connection = None
            if not _is_idle(connection):
                link.drop()

    def _raise_if_cut_off(self, error: Exception | None = None) -> None:
        if self._cut_off:
            raise psycopg.OperationalError(f"no answer within {self._seconds:g} s") from error

    def cut_off(self) -> None:
        """Close the connection under the work: whoever waits for it to answer is told."""
        with self._lock:
            self._cut_off = True
            if self._connection is not None and not self._connection.closed:
                wire = socket.socket(fileno=os.dup(self._connection.fileno()))
                # It may have ended by itself just now.
                with wire, contextlib.suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)


def _is_idle(connection: psycopg.Connection) -> bool:
    """Whether a connection can serve again; one left in a transaction is brought out of it."""
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
    """Up to so many connections, each in a thread of its own.

    :param seconds: how long one piece of work may take: longer than the server lets a
        statement take, so that only a server that is not heard any more is given up.
    :param clock: what sets timers.
    :param opened: what is done with each new connection.
    """

    def __init__(
        self,
        *,
        conninfo: str,
        size: int,
        seconds: int,
        reactor: IReactorTime,
        clock: IReactorTime,
        opened: Callable[[psycopg.Connection], object] = lambda _: None,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._opened = opened
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
            # A pooler between may give each transaction another session.
            prepare_threshold=None,
        )
        self._pool.connectionFactory = _Link

    def _open(self, connection: psycopg.Connection) -> None:
        try:
            connection.adapters.register_loader("bytea", Text)
            connection.execute((_SESSION % max(1, self._seconds - 5)).encode())
            self._opened(connection)
        except BaseException:
            connection.close()
            raise

    def run(self, work: Callable[[psycopg.Connection], T]) -> Deferred[T]:
        """Do some work on a connection, in another thread.

        It fails with :class:`StoreUnavailable` where the database is at fault, and with what
        the database says where the statement is.
        """
        piece = _Work(self._seconds)
        self._running.add(piece)
        timer = self._clock.callLater(self._seconds, piece.cut_off)

        def ended(result: T) -> T:
            self._running.discard(piece)
            if timer.active():
                timer.cancel()
            return result

        running: Deferred[T] = self._pool.runWithConnection(piece.run, work)
        return running.addBoth(ended).addErrback(_unavailable)

    def close(self) -> None:
        """Cut off what is still under way, and close the connections."""
        for piece in self._running:
            piece.cut_off()
        self._pool.close()


def _unavailable(failure: Failure) -> Failure:
    """Say what callers need to know: whether the database is at fault, not the statement.

    The server tells the whole of a row that breaks a rule, payload and headers included:
    only the sentence that comes before it is passed on.
    """
    error = failure.value
    if not isinstance(error, psycopg.Error):
        return failure
    said = " ".join((error.diag.message_primary or str(error)).split())
    repeated = type(error)(said)
    if isinstance(error, _AT_FAULT_IS_THE_STATEMENT):
        raise repeated from None
    # The cause tells whether every write would meet it, or this one alone.
    raise StoreUnavailable(f"the database cannot be used: {said}") from repeated
