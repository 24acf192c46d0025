"""The store in PostgreSQL: one connection that writes, a few that read, one that says we live."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...core.task import Claim, Definition, Task, Transition
from ...core.times import Key, to_ms
from ..database import SqlStore
from ..group_commit import GroupCommit
from ..interface import PutResult, StoreUnavailable, TaskVersion
from . import looks
from .claims import NOW, Claiming
from .connections import Connections
from .cursor import Cursor, in_transaction
from .database import take_name
from .nodes import Member
from .puts import PutTask, binary, put_many
from .records import Record
from .server import Server
from .together import run_all

T = TypeVar("T")
READERS = 3
WORK_SECONDS = 25
"""How long a transaction may take before its connection is given up."""
ALIVE_WORK_SECONDS = 8
"""The same for saying that we live, which must be done again well before we count as dead."""
IN_DOUBT_SECONDS = 60
"""How long the server may still commit a claim whose connection ended."""
LEAVE_SECONDS = 3.0
"""How long at the end the writes under way may take."""
_TRIES = 3
# The transaction is undone, by no fault of its own: another daemon was in its way.
_TRY_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
# What one operation may bring about, and the others need not suffer.
_OF_ONE = (errors.QueryCanceled, errors.LockNotAvailable, errors.TransactionRollback)

_WAITING = f"""
    SELECT DISTINCT host FROM (
        SELECT host FROM task
        WHERE state = 'scheduled' AND due_at <= {NOW} / 1000
        ORDER BY due_at LIMIT 10000
    ) AS longest_due
"""
_DOUBTFUL = "SELECT DISTINCT host FROM task WHERE state = 'running' AND token = ANY(?)"


class PostgresqlStore(SqlStore):
    """Tasks in a PostgreSQL database; implements :class:`callme.store.port.Store`.

    Whatever fails because the connection ended may have been committed all the same. A put,
    a delete and a purge may be repeated as they are. A record that stands there already
    counts as stored. What a claim took, if it took anything, is found by its token
    before the next one takes more.

    :param server: the database, of the newest schema.
    :param node: gives the daemon's name, which attempts carry.
    :param clock: what sets timers: the reactor, unless there is a steadier one.
    :param committed: told of each commit how many operations it had.
    """

    SIZE = "SELECT pg_total_relation_size('task') + pg_total_relation_size('attempt')"
    _values = staticmethod(binary)

    def __init__(
        self,
        server: Server,
        reactor: IReactorTime,
        node: Callable[[], str],
        clock: IReactorTime | None = None,
        committed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._server = server
        self._clock = clock = clock or reactor
        self._name = node
        self._node: Member | None = None
        self._tokens = count(random.getrandbits(62))
        # The tokens of claims whose answer was lost, and when that was.
        self._in_doubt: dict[int, float] = {}
        self._writer = Connections(server.conninfo, 1, WORK_SECONDS, reactor, clock)
        self._readers = Connections(server.conninfo, READERS, WORK_SECONDS, reactor, clock)
        self._alive = Connections(
            server.conninfo, 1, ALIVE_WORK_SECONDS, reactor, clock, lambda c: take_name(c, node())
        )
        self._commits: GroupCommit[Cursor] = GroupCommit(
            clock, self._transact, _fails_all, run=run_all, told=committed
        )

    def put(
        self, definition: Definition, now: float, *, create: bool = True, replace: bool = False
    ) -> Deferred[PutResult]:
        return self._write(PutTask(definition, now, create, replace))

    def put_many(
        self, tasks: Sequence[tuple[Definition, bool]], now: float
    ) -> Deferred[Sequence[PutResult]]:
        return self._write(partial(put_many, tasks=tasks, now=now))

    def changed(
        self, seen: Mapping[Key, TaskVersion | None], limit: int
    ) -> Deferred[Mapping[Key, Task | None]]:
        return self._read(partial(looks.changed, seen=seen, limit=limit))

    def claim(self, shares: Mapping[str, int], now: float) -> Deferred[Sequence[Claim]]:
        token = next(self._tokens)
        node = self._me()
        doubtful = tuple(self._in_doubt)
        claiming = self._write(
            Claiming(shares, now, self._ms(now), node.name, node.node_id, token, doubtful)
        )

        def claimed(found: Sequence[Claim]) -> Sequence[Claim]:
            for claim in found:
                self._in_doubt.pop(claim.token, None)
            self._forget_doubts()
            return found

        def failed(failure: Failure) -> Failure:
            if failure.check(StoreUnavailable):
                self._in_doubt[token] = self._clock.seconds()
            return failure

        return claiming.addCallbacks(claimed, failed)

    def _forget_doubts(self) -> None:
        before = self._clock.seconds() - IN_DOUBT_SECONDS
        for token in [token for token, since in self._in_doubt.items() if since < before]:
            del self._in_doubt[token]

    def record(self, claim: Claim, transition: Transition, now: float) -> Deferred[bool]:
        return self._write(Record(claim, transition, now))

    def abandoned(self, now: float, *, every: bool = False) -> Deferred[Sequence[Claim]]:
        # Whether we have just started says nothing of the others: no claim is ours then.
        saying = self._alive.run(
            partial(self._me().heartbeat, now=now, ms=self._ms(now), token=next(self._tokens))
        )

        def said(claims: Sequence[Claim]) -> Sequence[Claim]:
            self._server.release()
            # That was a write: who has no other would be taken for failing until the next minute.
            self._commits.mark_healthy()
            return claims

        return saying.addCallback(said)

    def waiting(self, now: float) -> Deferred[Sequence[str]]:
        doubtful = list(self._in_doubt)

        def waiting(connection: psycopg.Connection) -> Sequence[str]:
            cursor = Cursor(connection)
            hosts = [host for (host,) in cursor.execute(_WAITING, {"ms": self._ms(now)})]
            if doubtful:
                hosts += [host for (host,) in cursor.execute(_DOUBTFUL, (doubtful,))]
            return hosts

        return self._alive.run(waiting)

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._within(LEAVE_SECONDS, self._commits.idle())
        if self._node is not None and self._node.node_id is not None:
            # Who cannot say farewell is missed after a while.
            await self._within(LEAVE_SECONDS, self._alive.run(self._node.leave))
        for connections in (self._alive, self._readers, self._writer):
            connections.close()
        self._server.release()

    async def _within(self, seconds: float, doing: Deferred[None]) -> None:
        """Wait for something, but not for long, and not for its success."""
        doing.addTimeout(seconds, self._clock)
        await doing.addErrback(lambda failure: failure.trap(StoreUnavailable, defer.TimeoutError))

    def _me(self) -> Member:
        if self._node is None:
            # Not before: the daemon may have another process id by now than when it was made.
            self._node = Member(self._name())
        return self._node

    def _ms(self, now: float) -> int | None:
        return to_ms(now) if self._server.use_client_clock else None

    def _time(self, cursor: Cursor, now: float) -> float:
        if self._server.use_client_clock:
            return now
        (seconds,) = cursor.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        return float(seconds)

    def _write(self, operation: Callable[[Cursor], T]) -> Deferred[T]:
        return self._commits.write(operation)

    def _transact(self, run: Callable[[Cursor], list[Any]]) -> Deferred[list[Any]]:
        def work(connection: psycopg.Connection) -> list[Any]:
            for _ in range(_TRIES - 1):
                try:
                    return in_transaction(connection, b"BEGIN", run)
                except _TRY_AGAIN:
                    connection.execute("ROLLBACK")
            return in_transaction(connection, b"BEGIN", run)

        return self._writer.run(work)

    def _read(self, query: Callable[[Cursor], T]) -> Deferred[T]:
        begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        return self._readers.run(lambda connection: in_transaction(connection, begin, query))


def _fails_all(failure: Failure) -> bool:
    cause = failure.value.__cause__ if failure.value is not None else None
    return failure.check(StoreUnavailable) is not None and not isinstance(cause, _OF_ONE)
