"""The store in PostgreSQL, with connections for writes, for reads and for the heartbeat."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, groupby
from typing import Any, TypeVar

import psycopg
from attrs import fields
from psycopg import errors
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...core.notification import notification_url
from ...core.task import Claim, Task
from ...core.times import Key, to_ms
from ...core.transitions import PutCondition
from .. import queue, tasks
from ..changes import Changes
from ..database import Operation, Unfinished, Write
from ..group_commit import GroupCommitStore
from ..interface import StoreUnavailable, TaskVersion
from .cursor import PostgresqlCursor, in_transaction
from .dsn import Server
from .membership import ClockWatch, Heartbeat, Member
from .pool import AbandonedCommits, Connections, ensure_no_table_lock, ensure_own_session
from .queue import DUE_HOSTS, IN_DOUBT_HOSTS, ClaimCall, RecordCall, send_claims, send_records
from .setup import take_name
from .tasks import (
    PutAgainCall,
    PutCall,
    PutManyCall,
    get_if_modified,
    put_again,
    send_puts,
    send_puts_again,
    send_puts_of_many,
)

T = TypeVar("T")
READERS = 3
WRITERS = 4
"""Maximum number of write transactions in flight."""
WORK_SECONDS = 25
"""Time limit of a transaction in seconds, after which its connection is closed."""
HEARTBEAT_WORK_SECONDS = 8
"""Time limit of a heartbeat in seconds; a retry must succeed before the daemon counts as dead."""
IN_DOUBT_SECONDS = 60
"""Seconds for which the server may still commit a claim whose connection was lost."""
CLOSE_STEP_SECONDS = 3.0
"""Time limit of each step of closing, in seconds."""
# A commit that is pipelined with its statements may reach the server late, after a network outage.
# By then the write has failed for its client, so that it must not be committed.
_IN_TIME = "SELECT 1 / (clock_timestamp() < to_timestamp(?))::int"
_MAX_TRIES = 3
# Conflicts with another daemon, which roll the transaction back: a retry can succeed.
_RETRIED_ERRORS = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
# Errors that a single operation may cause: the operations of the transaction then run singly.
_SINGLE_OPERATION_ERRORS = (
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.TransactionRollback,
)

_PIPELINED: dict[Callable[..., Any], tuple[type, Callable[..., Callable[[], Sequence[Any]]]]] = {
    tasks.put: (PutCall, send_puts),
    tasks.put_many: (PutManyCall, send_puts_of_many),
    put_again: (PutAgainCall, send_puts_again),
    queue.claim: (ClaimCall, send_claims),
    queue.record: (RecordCall, send_records),
}
"""Operations that are sent together if several follow each other: the type of their arguments,
and the function that sends them."""
_ARGUMENTS = {
    arguments: tuple(attribute.name for attribute in fields(arguments))
    for arguments, _ in _PIPELINED.values()
}


def run_all(write: Write, operations: Sequence[Operation]) -> list[Any]:
    """Run operations in order; consecutive operations of the same kind share a statement.

    Statements are pipelined wherever possible.
    """
    results: list[Any] = []
    sent: list[Callable[[], Sequence[Any]]] = []
    for function, group in groupby(operations, key=lambda operation: operation.function):
        if function in _PIPELINED:
            sent.append(_send(write, function, group))
            continue
        results += _receive(write, sent)
        results += [operation.run(write) for operation in group]
    return results + _receive(write, sent)


def send_all(write: Write, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
    """Send the statements of operations that have keys; return a function that receives results.

    The function is called after the commit, so that all takes one round trip. The results of some
    operations may be :class:`Unfinished`.
    """
    sent = [
        _send(write, function, group)
        for function, group in groupby(operations, key=lambda operation: operation.function)
    ]
    return lambda: [result for receive in sent for result in receive()]


def _send(
    write: Write, function: Callable[..., Any], group: Iterable[Operation]
) -> Callable[[], Sequence[Any]]:
    arguments, send = _PIPELINED[function]
    return send(write, [_bind(arguments, operation) for operation in group])


def _bind(arguments: type, operation: Operation) -> Any:
    named = zip(_ARGUMENTS[arguments], operation.args, strict=False)
    return arguments(**dict(named), **operation.kwargs)


def _receive(write: Write, sent: list[Callable[[], Sequence[Any]]]) -> list[Any]:
    """Receive the results of sent operations, and finish the unfinished ones."""
    received = [result for receive in sent for result in receive()]
    sent.clear()
    rest = [result.operation for result in received if isinstance(result, Unfinished)]
    if not rest:
        return received
    finished = iter(run_all(write, rest))
    return [next(finished) if isinstance(result, Unfinished) else result for result in received]


def keys_of(operation: Operation, on_failure: str | None) -> Collection[Hashable] | None:
    """Return the keys that an operation writes; ``None`` if it may need several round trips.

    :param on_failure: as in :class:`callme.store.database.Store`.
    """
    function, args = operation.function, operation.args
    if function is tasks.put:
        definition, condition, _ = args
        return None if condition is PutCondition.MUST_EXIST else (definition.key,)
    if function is tasks.put_many:
        return [definition.key for definition in args[0]]
    if function is queue.record:
        claim, transition, _ = args
        is_last = notification_url(claim.definition, transition.state, on_failure) is None
        return (claim.task_id,) if is_last else None
    if function is queue.claim and not operation.kwargs["in_doubt"]:
        return ()
    return None


def _with_retries(
    write_once: Callable[[psycopg.Connection], T], connection: psycopg.Connection
) -> T:
    try:
        for _ in range(_MAX_TRIES - 1):
            with suppress(*_RETRIED_ERRORS):
                return write_once(connection)
            connection.execute("ROLLBACK")
        return write_once(connection)
    except errors.LockNotAvailable:
        connection.execute("ROLLBACK")
        ensure_no_table_lock(connection)
        raise


class PostgresqlStore(GroupCommitStore):
    """Store in a PostgreSQL database.

    An operation whose connection was lost may have been committed. A put, a delete and a purge can
    simply be repeated. A record that already exists counts as stored. A claim is in doubt: the next
    claim first finds the tasks of the lost one by its token.

    Operations that usually take one round trip run in several concurrent transactions.

    :param server: the database, of the newest schema.
    :param node: as in :class:`callme.store.group_commit.GroupCommitStore`.
    :param clock: schedules the timers; the reactor by default.
    """

    _max_parallel = WRITERS

    def __init__(
        self,
        server: Server,
        reactor: IReactorTime,
        node: Callable[[], str],
        clock: IReactorTime | None = None,
    ) -> None:
        clock = clock or reactor
        super().__init__(node, clock)
        self._server = server
        self._own_member: Member | None = None
        self._tokens = count(random.getrandbits(62))
        # Tokens of claims whose results were lost, each with the time of the loss.
        self._in_doubt: dict[int, float] = {}
        self._clocks = ClockWatch()
        # The database's time minus the monotonic clock of this process, in seconds.
        self._database_ahead: float | None = None
        connections = partial(Connections, conninfo=server.conninfo, reactor=reactor, clock=clock)
        # A commit in doubt does not affect readers, which commit nothing.
        self._readers = connections(size=READERS, seconds=WORK_SECONDS)
        connections = partial(connections, abandoned=AbandonedCommits())
        self._writer = connections(size=WRITERS, seconds=WORK_SECONDS)
        self._heartbeats = connections(
            size=1,
            seconds=HEARTBEAT_WORK_SECONDS,
            on_open=lambda connection: take_name(connection, node()),
        )
        self.overrides.update(
            {
                tasks.get_if_modified: self._get_if_modified,
                queue.claim: self._claim,
                queue.take_orphans: self._take_orphans,
                queue.hosts_with_due_tasks: self._hosts_with_due_tasks,
            }
        )

    async def _close(self) -> None:
        await self._within(CLOSE_STEP_SECONDS, self._commits.idle())
        member = self._own_member
        if member is not None and member.node_id is not None:
            # Otherwise the other daemons take over claims only after a timeout.
            await self._within(CLOSE_STEP_SECONDS, self._heartbeats.run(member.deregister))
        for connections in (self._heartbeats, self._readers, self._writer):
            connections.close()
        self._server.release()

    async def _within(self, seconds: float, doing: Deferred[None]) -> None:
        """Wait for a Deferred, up to some seconds; ignore an unavailable database."""
        doing.addTimeout(seconds, self._clock)
        await doing.addErrback(lambda failure: failure.trap(StoreUnavailable, defer.TimeoutError))

    def _get_if_modified(
        self, known: Mapping[Key, TaskVersion | None], limit: int
    ) -> Deferred[Mapping[Key, Task | None]]:
        return self._read(partial(get_if_modified, known=known, limit=limit))

    def _claim(self, shares: Mapping[str, int], now: float) -> Deferred[Sequence[Claim]]:
        token = next(self._tokens)
        member = self._member()
        call = {
            "shares": shares,
            "now": now,
            "ms": self._given_ms(now),
            "name": member.name,
            "node_id": member.node_id,
            "token": token,
            "in_doubt": tuple(self._in_doubt),
        }

        def claimed(found: Sequence[Claim]) -> Sequence[Claim]:
            for claim in found:
                self._in_doubt.pop(claim.token, None)
            before = self._clock.seconds() - IN_DOUBT_SECONDS
            for old in [token for token, since in self._in_doubt.items() if since < before]:
                del self._in_doubt[old]
            return found

        def failed(failure: Failure) -> Failure:
            if failure.check(StoreUnavailable):
                self._in_doubt[token] = self._clock.seconds()
            return failure

        return self._write(Operation(function=queue.claim, args=(), kwargs=call)).addCallbacks(
            claimed, failed
        )

    def _take_orphans(self, now: float, *, every: bool = False) -> Deferred[Sequence[Claim]]:
        # ``every`` has no effect: claims of live daemons are never orphaned.
        member, ms, token = self._member(), self._given_ms(now), next(self._tokens)
        sent_at = self._clock.seconds()

        def beat(connection: psycopg.Connection) -> Heartbeat:
            result = member.heartbeat(connection, now, ms, token)
            ensure_own_session(connection, result.pid)
            return result

        def compare_clocks(result: Heartbeat) -> Heartbeat:
            self._database_ahead = result.database_ms / 1000 - self._clock.seconds()
            if ms is None:
                duration = self._clock.seconds() - sent_at
                self._clocks.compare(
                    sent_at=now, duration_seconds=duration, database_ms=result.database_ms
                )
            return result

        beating = self._heartbeats.run(beat).addCallback(compare_clocks)
        return beating.addCallbacks(self._taken, self._heartbeat_failed)

    def _taken(self, result: Heartbeat) -> Sequence[Claim]:
        self._server.release()
        # A heartbeat is a write: on an idle daemon, no other write detects the end of a failure.
        self._commits.mark_healthy()
        self.changes.publish(result.changes)
        return result.claims

    def _heartbeat_failed(self, failure: Failure) -> Failure:
        if failure.check(StoreUnavailable):
            self._commits.mark_failing()
        return failure

    def _hosts_with_due_tasks(self, now: float) -> Deferred[Sequence[str]]:
        in_doubt = list(self._in_doubt)

        def read(connection: psycopg.Connection) -> Sequence[str]:
            cursor = PostgresqlCursor(connection)
            hosts = [host for (host,) in cursor.execute(DUE_HOSTS, {"ms": self._given_ms(now)})]
            if in_doubt:
                hosts += [host for (host,) in cursor.execute(IN_DOUBT_HOSTS, (in_doubt,))]
            return hosts

        return self._heartbeats.run(read)

    def _member(self) -> Member:
        if self._own_member is None:
            # The name may contain the process id, which a fork after the constructor changes.
            self._own_member = Member(name=self._node(), on_failure=self.on_failure)
        return self._own_member

    def _given_ms(self, now: float) -> int | None:
        return to_ms(now) if self._server.use_client_clock else None

    def _keys(self, operation: Operation) -> Collection[Hashable] | None:
        return keys_of(operation, self.on_failure)

    def _transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        has_keys = all(self._keys(operation) is not None for operation in operations)
        latest = self._latest() if has_keys else None

        def write_once(
            connection: psycopg.Connection, latest: float | None
        ) -> tuple[list[Any], Changes]:
            changes = Changes()

            def run(cursor: PostgresqlCursor) -> Callable[[], list[Any]]:
                write = Write(
                    cursor=cursor, node=self._node, changes=changes, on_failure=self.on_failure
                )
                if latest is not None:
                    cursor.execute(_IN_TIME, (latest,))
                    return send_all(write, operations)
                results = run_all(write, operations)
                return lambda: results

            receive = self._in_transaction(connection, b"BEGIN", run)
            return receive(), changes

        def write_in_time(connection: psycopg.Connection) -> tuple[list[Any], Changes]:
            if latest is not None:
                with suppress(errors.DivisionByZero):
                    return write_once(connection, latest)
                connection.execute("ROLLBACK")
            return write_once(connection, None)

        return self._writer.run(partial(_with_retries, write_in_time))

    def _latest(self) -> float | None:
        """Return the deadline of work that begins now, in the database's time, if that is known."""
        if self._database_ahead is None:
            return None
        return self._clock.seconds() + self._database_ahead + WORK_SECONDS

    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        return self._readers.run(lambda connection: self._in_transaction(connection, begin, query))

    def _in_transaction(
        self, connection: psycopg.Connection, begin: bytes, work: Callable[[PostgresqlCursor], T]
    ) -> T:
        return in_transaction(
            connection, begin, work, use_client_clock=self._server.use_client_clock
        )

    @staticmethod
    def _fails_all(failure: Failure) -> bool:
        cause = failure.value.__cause__ if failure.value is not None else None
        return GroupCommitStore._fails_all(failure) and not isinstance(
            cause, _SINGLE_OPERATION_ERRORS
        )
