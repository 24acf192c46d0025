"""A stand-in for a PostgreSQL server and the network to it, for the daemons of a fleet.

The store of each daemon is callme's own (:class:`callme.store.postgresql.engine.PostgresqlStore`);
only its connections are replaced. A transaction is a single step, as in :mod:`.database`. Whether
it is executed and whether its response arrives are two questions: a network may fail between them,
and a daemon may die or freeze.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any

import psycopg
from attrs import define, field
from psycopg import errors
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from callme.store.postgresql import pool
from callme.store.sqlite.file import migrations

from . import dialect
from .timeline import Timeline

SILENCE = 10.0
"""Seconds without an acknowledgement after which either side of a connection gives it up."""
IDLE = 20.0
"""Seconds after which the server ends a session that is idle in a transaction."""
_SCHEMA = """
    ALTER TABLE task ADD COLUMN holder INTEGER;
    ALTER TABLE task ADD COLUMN token INTEGER;
    CREATE TABLE node (
        node_id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,
        seen_at_ms INTEGER NOT NULL, stable_since_ms INTEGER NOT NULL
    );
"""


@define(eq=False)
class DatabaseServer:
    """A database with its sessions, in memory: all that is committed survives a restart.

    :ivar down_until: the end (monotonic) of an outage.
    :ivar slow: the maximum seconds that a message takes.
    :ivar on_doubt: called when the result of a commit is lost.
    """

    random: Random
    timeline: Timeline
    on_doubt: Callable[[str], None] = lambda why: None
    down_until: float = 0.0
    slow: float = 0.002
    statements: int = 0
    locks: dict[tuple[int, str], Session] = field(factory=dict)
    _current: Session | None = None
    _pids: Iterator[int] = field(factory=lambda: count(1))
    connection: sqlite3.Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")
        for _, script in migrations().pending(0, "the database"):
            # PostgreSQL never uses a number again.
            unique = re.sub(r"(task_id +INTEGER PRIMARY KEY)", r"\1 AUTOINCREMENT", script)
            self.connection.executescript(unique)
        self.connection.executescript(_SCHEMA)
        functions: list[tuple[str, int, Callable[..., Any]]] = [
            ("database_time", 0, self.timeline.wall),
            ("floor", 1, int),
            ("decode", 2, lambda digits, _: bytes.fromhex(digits).decode()),
            ("hashtext", 1, str),
            ("pg_backend_pid", 0, lambda: self._session.pid),
            ("pg_try_advisory_lock", 2, self._try_lock),
        ]
        for name, arguments, function in functions:
            self.connection.create_function(name, arguments, function)

    @property
    def is_down(self) -> bool:
        return self.timeline.elapsed < self.down_until

    @property
    def _session(self) -> Session:
        assert self._current is not None
        return self._current

    def _try_lock(self, kind: int, name: str) -> bool:
        return self.locks.setdefault((kind, name), self._session) is self._session

    def next_pid(self) -> int:
        return next(self._pids)

    def execute(self, session: Session, statement: str, values: Any) -> dialect.Rows:
        """Execute a statement of a session."""
        self.statements += 1
        self._current = session
        try:
            result = dialect.execute(self.connection, statement, values)
        except sqlite3.IntegrityError as error:
            raise errors.UniqueViolation(str(error)) from error
        finally:
            self._current = None
        if "SELECT 1 / (" in statement and result.rows == [(None,)]:
            raise errors.DivisionByZero("division by zero")
        return result

    def end(self, session: Session) -> None:
        """End a session: its locks are released, its transaction is undone."""
        self.locks = {name: one for name, one in self.locks.items() if one is not session}

    def query(self, sql: str, *values: Any) -> list[Any]:
        """Return what an observer finds in the database."""
        return self.connection.execute(sql, values).fetchall()


@define(eq=False)
class Session:
    """A connection to the server: the part of psycopg's that callme uses.

    :ivar unattended: whether its client no longer reads responses; its sent statements are
        executed.
    :ivar sends_nothing: whether its client cannot continue a transaction.
    """

    server: DatabaseServer
    pid: int = field(init=False)
    closed: bool = False
    unattended: bool = False
    sends_nothing: bool = False
    in_transaction: bool = False
    info: Any = field(factory=lambda: SimpleNamespace(pipeline_status=0))
    __weakref__: Any = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.pid = self.server.next_pid()
        pool._PIDS[self] = self.pid  # type: ignore[index]

    def pipeline(self) -> AbstractContextManager[None]:
        return nullcontext()

    def cursor(self) -> SessionCursor:
        return SessionCursor(self)

    def execute(self, statement: bytes | str, values: Any = None) -> SessionCursor:
        cursor = self.cursor()
        cursor.execute(statement, values)
        return cursor

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.server.end(self)


@define(eq=False)
class SessionCursor:
    """A cursor of such a connection."""

    connection: Session
    _result: dialect.Rows = field(factory=partial(dialect.Rows, []))
    _position: int = 0

    @property
    def rowcount(self) -> int:
        self._attend()
        return self._result.changed

    def execute(self, statement: bytes | str, values: Any = None) -> None:
        text = statement.decode() if isinstance(statement, bytes) else statement
        if text == "ROLLBACK":
            self._attend()
        self._result = self.connection.server.execute(self.connection, text, values)
        self._position = 0
        if text.startswith("BEGIN"):
            self.connection.in_transaction = True
        elif text in ("COMMIT", "ROLLBACK"):
            self.connection.in_transaction = False

    def executemany(self, statement: bytes | str, rows: Any) -> None:
        for row in rows:
            self.execute(statement, row)

    def fetchone(self) -> Any:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, number: int) -> list[Any]:
        self._attend()
        begin = self._position
        self._position = min(len(self._result.rows), begin + number)
        return self._result.rows[begin : self._position]

    def fetchall(self) -> list[Any]:
        return self.fetchmany(len(self._result.rows))

    def _attend(self) -> None:
        """Stop here if the client does not read the responses that its next step depends on."""
        connection = self.connection
        if connection.unattended or (connection.sends_nothing and connection.in_transaction):
            raise psycopg.OperationalError("the connection is lost")


@define(eq=False)
class Link:
    """The network between one daemon and the server.

    :ivar cut_until: the end (monotonic) of an interruption.
    """

    server: DatabaseServer
    process: Any
    cut_until: float = 0.0

    @property
    def is_cut(self) -> bool:
        return self.server.timeline.elapsed < self.cut_until


@define(eq=False)
class _Work:
    """A piece of work that a daemon has given to a connection.

    :ivar ended: whether the server has nothing to do with it any more.
    :ivar over: whether the daemon has its result.
    """

    run: Callable[[Any], Any]
    result: Deferred[Any]
    session: Session | None = None
    timer: Any = None
    ended: bool = False
    over: bool = False


class SimulatedConnections:
    """A replacement for :class:`callme.store.postgresql.pool.Connections`.

    :param conninfo: the link to the server.
    """

    def __init__(
        self,
        *,
        conninfo: Any,
        size: int,
        seconds: int,
        reactor: Any,
        clock: Any,
        abandoned: Any = None,
        on_open: Callable[[Any], object] = lambda _: None,
    ) -> None:
        self._link: Link = conninfo
        self._server = self._link.server
        self._size, self._seconds, self._on_open = size, seconds, on_open
        self._reactor = reactor
        self._idle: list[Session] = []
        self._queue: list[_Work] = []
        self._running: list[_Work] = []
        self._link.process.pools.append(self)

    def run(self, work: Callable[[Any], Any]) -> Deferred[Any]:
        """Run work on a session, at a later step."""
        piece = _Work(work, Deferred())
        piece.timer = self._reactor.callLater(self._seconds, self._time_out, piece)
        self._queue.append(piece)
        self._begin()
        return piece.result.addErrback(pool._unavailable)

    def _begin(self) -> None:
        while self._queue and len(self._running) < self._size:
            piece = self._queue.pop(0)
            self._running.append(piece)
            piece.session = self._idle.pop() if self._idle else None
            self._send(piece)

    def _send(self, piece: _Work) -> None:
        server = self._server
        server.timeline.after(server.random.random() * server.slow, None, self._arrive, piece)

    def _arrive(self, piece: _Work) -> None:
        """Let the server execute the sent statements, if they arrive."""
        server, link = self._server, self._link
        process, now = link.process, server.timeline.elapsed
        if piece.over or piece.ended:
            return
        if not process.alive:
            # The last messages of a process that died may be on their way.
            if piece.session is not None and server.random.random() < 0.5:
                self._execute_unattended(piece)
        elif server.is_down:
            self._end(piece, psycopg.OperationalError("the connection is refused"))
        elif link.is_cut:
            self._interrupted(piece)
        elif process.frozen_until > now:
            self._arrive_frozen(piece, process.frozen_until - now)
        else:
            self._execute(piece)

    def _arrive_frozen(self, piece: _Work, seconds: float) -> None:
        """Execute all statements of a frozen daemon, which reads the results when it resumes."""
        session = piece.session
        if session is not None:
            session.sends_nothing = True
            with suppress(psycopg.OperationalError):
                self._end(piece, None, self._run(piece))
            session.sends_nothing = False
        if piece.ended:
            return
        if seconds < IDLE:
            self._server.timeline.after(seconds, None, self._arrive, piece)
        else:
            self._end(piece, psycopg.OperationalError("the session was idle for too long"))

    def _interrupted(self, piece: _Work) -> None:
        """Lose the request, or its response, or let it arrive later than anyone expects."""
        server = self._server
        left = self._link.cut_until - server.timeline.elapsed
        kind = server.random.choice(("lost", "lost", "unanswered", "late"))
        if kind == "unanswered" and piece.session is not None:
            server.on_doubt("the network is cut before a response")
            self._execute_unattended(piece)
        elif kind == "late" and piece.session is not None:
            # The proxy continues to accept bytes, so that only callme's own time limit ends the
            # work.
            server.timeline.after(left, None, self._arrive_late, piece)
            return
        if left < SILENCE and kind != "unanswered":
            server.timeline.after(left, None, self._arrive, piece)
        else:
            error = psycopg.OperationalError("the connection timed out")
            server.timeline.after(SILENCE, None, self._end, piece, error)

    def _arrive_late(self, piece: _Work) -> None:
        if piece.ended:
            return
        if not piece.over and self._link.process.alive:
            self._arrive(piece)
        else:
            self._server.on_doubt("a request arrives late")
            self._execute_unattended(piece)

    def _execute_unattended(self, piece: _Work) -> None:
        """Execute the sent statements before any response is needed."""
        assert piece.session is not None
        piece.session.unattended = True
        self._link.process.is_in_doubt = True
        with suppress(psycopg.Error):
            self._run(piece)

    def _run(self, piece: _Work) -> Any:
        session = piece.session
        if session is None:
            session = piece.session = Session(self._server)
            self._on_open(session)
        try:
            return piece.run(session)
        finally:
            if session.in_transaction:
                session.in_transaction = False
                self._server.connection.execute("ROLLBACK")

    def _execute(self, piece: _Work) -> None:
        try:
            result = self._run(piece)
        except Exception as error:
            self._end(piece, error)
        else:
            self._end(piece, None, result)

    def _end(self, piece: _Work, error: Exception | None, result: Any = None) -> None:
        """Return the result of a piece of work to the daemon."""
        session, piece.ended = piece.session, True
        broken = isinstance(error, psycopg.OperationalError)
        if broken and session is not None:
            session.close()
        self._reactor.callFromThread(self._deliver, piece, error, result)

    def _deliver(self, piece: _Work, error: Exception | None, result: Any) -> None:
        if piece.over:
            return
        piece.over = True
        if piece.timer.active():
            piece.timer.cancel()
        self._running.remove(piece)
        session = piece.session
        if session is not None and not (session.closed or session.unattended):
            self._idle.append(session)
        self._begin()
        if error is None:
            piece.result.callback(result)
        else:
            piece.result.errback(Failure(error))

    def _time_out(self, piece: _Work) -> None:
        error = psycopg.OperationalError(f"no response within {self._seconds:g} s")
        if piece in self._queue:
            self._queue.remove(piece)
            self._running.append(piece)
        if piece.session is not None:
            self.lose(piece.session)
        self._deliver(piece, error, None)

    def lose(self, session: Session) -> None:
        """Close a session from here; if the network is cut, the server notices it later."""
        if self._link.is_cut and not session.closed:
            session.unattended = True
            self._server.timeline.after(SILENCE, None, session.close)
        else:
            session.close()

    def broken(self) -> None:
        """Break every connection, as a server that dies does."""
        for session in self._idle:
            session.close()
        self._idle.clear()
        for piece in list(self._running):
            if piece.over or piece.ended:
                continue
            if piece.session is not None and self._server.random.random() < 0.5:
                self._server.on_doubt("the server dies before its response")
                self._execute_unattended(piece)
            self._end(piece, psycopg.OperationalError("the server closed the connection"))

    def drop(self) -> None:
        """End every session of a process that died."""
        for session in [*self._idle, *(one.session for one in self._running)]:
            if session is not None:
                session.close()

    def close(self) -> None:
        """Cancel the work in progress, and close the connections."""
        for piece in [*self._queue, *self._running]:
            self._time_out(piece)
        for session in self._idle:
            session.close()
        self._idle.clear()
