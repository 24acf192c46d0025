"""The store in SQLite: one connection that writes, a few that read, through adbapi."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...core.task import Claim, Definition, Transition
from ..database import SqlStore
from ..group_commit import GroupCommit
from ..interface import PutResult, StoreUnavailable
from . import claims
from .database import DatabaseFile, configure_reader, configure_writer

T = TypeVar("T")
READERS = 3
_AT_FAULT_IS_THE_STATEMENT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)


class SqliteStore(SqlStore):
    """Tasks in one SQLite file; implements :class:`callme.store.port.Store`.

    :param database: the file, already claimed and of the newest schema.
    :param node: gives the daemon's name, which attempts carry.
    :param clock: what sets timers: the reactor, unless there is a steadier one.
    :param committed: told of each commit how many operations it had.
    """

    SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"

    def __init__(
        self,
        database: DatabaseFile,
        reactor: IReactorTime,
        node: Callable[[], str],
        clock: IReactorTime | None = None,
        committed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._node = node
        self._writer = _pool(database, configure_writer, 1, reactor)
        self._readers = _pool(database, configure_reader, READERS, reactor)
        self._commits: GroupCommit[sqlite3.Cursor] = GroupCommit(
            clock or reactor, self._transact, _fails_all, told=committed
        )

    def put_many(
        self, tasks: Sequence[tuple[Definition, bool]], now: float
    ) -> Deferred[Sequence[PutResult]]:
        return self._write(partial(claims.put_many, tasks=tasks, now=now))

    def claim(self, shares: Mapping[str, int], now: float) -> Deferred[Sequence[Claim]]:
        return self._write(partial(claims.claim, shares=shares, now=now, node=self._node()))

    def record(self, claim: Claim, transition: Transition, now: float) -> Deferred[bool]:
        return self._write(partial(claims.record, claim=claim, transition=transition, now=now))

    def abandoned(self, now: float, *, every: bool = False) -> Deferred[Sequence[Claim]]:
        return self._write(partial(claims.abandoned, now=now, every=every))

    async def _close(self) -> None:
        await self._commits.idle()
        # The writer last: whoever closes last checkpoints, and readers must not.
        self._readers.close()
        self._writer.close()
        self._database.release()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    def _write(self, operation: Callable[[sqlite3.Cursor], T]) -> Deferred[T]:
        return self._commits.write(operation)

    def _transact(self, run: Callable[[sqlite3.Cursor], list[Any]]) -> Deferred[list[Any]]:
        return _in_pool(self._writer, "BEGIN IMMEDIATE", run)

    def _read(self, query: Callable[[sqlite3.Cursor], T]) -> Deferred[T]:
        return _in_pool(self._readers, "BEGIN", query)


def _pool(
    database: DatabaseFile,
    configure: Callable[[sqlite3.Connection], None],
    size: int,
    reactor: IReactorTime,
) -> adbapi.ConnectionPool:
    return adbapi.ConnectionPool(
        "sqlite3",
        str(database.path),
        cp_min=1,
        cp_max=size,
        cp_openfun=configure,
        cp_reactor=reactor,
        # sqlite3 opens no transaction by itself then: ours begin where they say so.
        isolation_level=None,
        # adbapi uses a connection from one thread only, but closes it from another.
        check_same_thread=False,
    )


def _in_pool(
    pool: adbapi.ConnectionPool, begin: str, run: Callable[[sqlite3.Cursor], T]
) -> Deferred[T]:
    def work(connection: Any) -> T:
        cursor = connection.cursor()
        try:
            cursor.execute(begin)
            return run(cursor)
        finally:
            cursor.close()

    # adbapi commits after this returns, and rolls back when it raises.
    done: Deferred[T] = pool.runWithConnection(work)
    return done.addErrback(_unavailable)


def _unavailable(failure: Failure) -> Failure:
    """Say what callers need to know: whether the database is at fault, not the statement."""
    error = failure.value
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, _AT_FAULT_IS_THE_STATEMENT
    ):
        raise StoreUnavailable(f"the database cannot be used: {error}") from error
    return failure


def _fails_all(failure: Failure) -> bool:
    return failure.check(StoreUnavailable) is not None
