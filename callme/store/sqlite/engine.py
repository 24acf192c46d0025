"""The store in SQLite, with one connection for writes and a few for reads, through adbapi."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..changes import Changes
from ..database import Operation, Write
from ..group_commit import GroupCommitStore
from ..interface import StoreUnavailable
from .bulk import NotTogether, run_all
from .cursor import SqliteCursor, run_decoded
from .file import DatabaseFile, configure_reader, configure_writer
from .guard import FileGuard

T = TypeVar("T")
READERS = 3
_BEGIN_WRITE = "BEGIN IMMEDIATE"
_STATEMENT_ERRORS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)


class SqliteStore(GroupCommitStore):
    """Store in a SQLite file.

    :param database: the file, locked and of the newest schema.
    :param node: as in :class:`callme.store.group_commit.GroupCommitStore`.
    :param clock: schedules the timers; the reactor by default.
    """

    def __init__(
        self,
        database: DatabaseFile,
        reactor: IReactorTime,
        node: Callable[[], str],
        clock: IReactorTime | None = None,
    ) -> None:
        super().__init__(node, clock or reactor)
        self._database = database
        self._guard = FileGuard(database)
        self._writer = _pool(database, self._open_writer, 1, reactor)
        self._readers = _pool(database, self._open_reader, READERS, reactor)

    def _open_writer(self, connection: sqlite3.Connection) -> None:
        configure_writer(connection)
        self._guard.note_companions()

    def _open_reader(self, connection: sqlite3.Connection) -> None:
        # Readers are opened on demand, so the file may have been replaced by then.
        self._guard.check()
        configure_reader(connection)

    @property
    def is_writable(self) -> bool:
        return super().is_writable and self._guard.is_in_place

    async def _close(self) -> None:
        await self._commits.idle()
        # The writer is closed last, because the last connection checkpoints, which readers must not
        # do.
        self._readers.close()
        self._writer.close()
        self._database.release()

    def _transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        def run(cursor: SqliteCursor) -> tuple[list[Any], Changes]:
            try:
                results, changes = run_in(cursor, savepoints=False)
            except NotTogether:
                cursor.execute("ROLLBACK")
                cursor.execute(_BEGIN_WRITE)
                results, changes = run_in(cursor, savepoints=True)
            self._guard.check_commit(cursor.connection)
            return results, changes

        def run_in(cursor: SqliteCursor, *, savepoints: bool) -> tuple[list[Any], Changes]:
            write = Write(cursor=cursor, node=self._node, on_failure=self.on_failure)
            return run_all(write, operations, savepoints=savepoints), write.changes

        return self._run(self._writer, _BEGIN_WRITE, run)

    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        return self._run(self._readers, "BEGIN", query)

    def _run(
        self, pool: adbapi.ConnectionPool, begin: str, run: Callable[[SqliteCursor], T]
    ) -> Deferred[T]:
        def work(connection: Any) -> T:
            # adbapi wraps the connection.
            with closing(connection.cursor()) as cursor:
                return run_decoded(cursor.connection, begin, run)

        # adbapi commits after this returns, and rolls back when it raises.
        done: Deferred[T] = pool.runWithConnection(work)
        return done.addErrback(self._explain)

    def _explain(self, failure: Failure) -> Failure:
        """Raise StoreUnavailable if the database, not the statement, is at fault."""
        error = failure.value
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _STATEMENT_ERRORS):
            # If the file is missing, the guard's error is clearer than SQLite's.
            self._guard.check()
            raise StoreUnavailable(f"the database cannot be used: {error}") from error
        return failure


def _pool(
    database: DatabaseFile,
    configure: Callable[[sqlite3.Connection], None],
    size: int,
    reactor: IReactorTime,
) -> adbapi.ConnectionPool:
    def configure_or_close(connection: sqlite3.Connection) -> None:
        # adbapi does not close a connection that could not be configured.
        try:
            configure(connection)
        except BaseException:
            connection.close()
            raise

    return adbapi.ConnectionPool(
        "sqlite3",
        # Without mode=rw, SQLite would create the file again if it was deleted.
        f"{database.path.as_uri()}?mode=rw",
        uri=True,
        cp_min=1,
        cp_max=size,
        cp_openfun=configure_or_close,
        cp_reactor=reactor,
        # Transactions begin explicitly, never by sqlite3 itself.
        isolation_level=None,
        # adbapi uses a connection from one thread only, but closes it from another.
        check_same_thread=False,
    )
