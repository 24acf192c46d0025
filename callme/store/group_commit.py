"""Group commit: writes that wait while a transaction is under way share the next one.

A commit that is synced to disk costs the same for one write as for hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

C = TypeVar("C")
T = TypeVar("T")
Operation = Callable[[C], Any]
MIN_BATCH = 100
"""Writes that go together at once; the more go, the less each costs."""


def run_sequentially(connection: C, operations: Sequence[Operation[C]]) -> list[Any]:
    """Run operations in order."""
    return [one(connection) for one in operations]


@define(eq=False)
class GroupCommit(Generic[C]):
    """Runs operations in the order they are given, as many in one transaction as wait for it.

    Each caller gets the result or the error of its own operation, after the
    commit. Where one operation fails, the transaction is undone and each is tried
    again in a transaction of its own: none suffers from its neighbours.

    :param transact: runs a function of a connection in one transaction, on
        another thread, and commits it.
    :param fails_all: whether an error would meet every operation alike, so that
        trying them one by one is of no use.
    :param run: runs operations in order and returns their results; it may do several of
        them at once.
    :param told: told of each commit how many operations it had.
    :ivar failing: whether a transaction met an error that every one would meet, and none was
        committed since, here or by other ways: see :meth:`mark_healthy`.
    """

    _clock: IReactorTime
    _transact: Callable[[Callable[[C], list[Any]]], Deferred[list[Any]]]
    _fails_all: Callable[[Failure], bool]
    _most: int = 500
    _run: Callable[[C, Sequence[Operation[C]]], list[Any]] = run_sequentially
    _told: Callable[[int], None] = lambda _: None
    failing: bool = field(default=False, init=False)
    _waiting: list[tuple[Operation[C], Deferred[Any]]] = field(factory=list, init=False)
    _retry_singly: int = field(default=0, init=False)
    _busy: bool = field(default=False, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)

    def write(self, operation: Callable[[C], T]) -> Deferred[T]:
        """Run an operation in the next transaction; its Deferred fires after the commit.

        The operation may run more than once, each time from the same state.
        """
        result: Deferred[T] = Deferred()
        self._waiting.append((operation, result))
        if not self._busy:
            self._busy = True
            # Not at once: what else is written in this turn of the reactor goes with it.
            self._clock.callLater(0, self._next)
        return result

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no write waits or is under way."""
        idle: Deferred[None] = Deferred()
        if self._busy:
            self._idle.append(idle)
        else:
            idle.callback(None)
        return idle

    def _next(self) -> None:
        batch = self._take()
        if not batch:
            self._busy = False
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)
            return
        operations = [operation for operation, _ in batch]
        running = self._transact(lambda connection: self._run(connection, operations))
        running.addCallbacks(self._committed, self._failed, (batch,), {}, (batch,))

    def _take(self) -> list[tuple[Operation[C], Deferred[Any]]]:
        if self._retry_singly:
            self._retry_singly -= 1
            count = 1
        else:
            # Half of what waits, where much does: the other half is written while
            # this one is answered.
            count = min(self._most, max(MIN_BATCH, len(self._waiting) // 2))
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def mark_healthy(self) -> None:
        """Say that the database has just taken a write by another way."""
        self.failing = False

    def _committed(
        self, results: list[Any], batch: Sequence[tuple[Operation[C], Deferred[Any]]]
    ) -> None:
        self.mark_healthy()
        self._told(len(batch))
        goes_on = bool(self._waiting)
        if goes_on:
            self._next()
        for (_, waiter), result in zip(batch, results, strict=True):
            waiter.callback(result)
        if not goes_on:
            self._next()

    def _failed(
        self, failure: Failure, batch: Sequence[tuple[Operation[C], Deferred[Any]]]
    ) -> None:
        fails_all = self._fails_all(failure)
        self.failing = self.failing or fails_all
        if len(batch) > 1 and not fails_all:
            self._waiting[:0] = batch
            self._retry_singly = len(batch)
        else:
            for _, waiter in batch:
                waiter.errback(failure)
        self._next()
