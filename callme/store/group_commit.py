"""Group commit: writes that arrive during a transaction share the next one.

A commit that is synced to disk costs the same for one write as for hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .changes import Changes

O = TypeVar("O")  # noqa: E741 - the operation
MIN_BATCH = 100
"""The least number of waiting writes that a transaction takes; the more, the less each costs."""


@define(eq=False, kw_only=True)
class GroupCommit(Generic[O]):
    """Queue of operations that runs as many in one transaction as are waiting, in order.

    Each caller gets the result or the error of its own operation, after the commit. If one
    operation fails, the transaction is undone and each of its operations is repeated in a
    transaction of its own, so that none suffers from its neighbours.

    :param transact: runs operations in one transaction, on another thread, and commits it;
        returns their results and what they changed.
    :param fails_all: returns whether an error would meet every operation, so that repeating them
        one by one is of no use.
    :param publish: called with the changes of each commit.
    :param max_batch: the maximum number of operations in a transaction.
    :ivar failing: whether a transaction met an error that every one would meet, and none was
        committed since, here or by other ways: see :meth:`mark_healthy`.
    """

    _clock: IReactorTime
    _transact: Callable[[Sequence[O]], Deferred[tuple[list[Any], Changes]]]
    _fails_all: Callable[[Failure], bool]
    _publish: Callable[[Changes], None]
    _max_batch: int = 500
    failing: bool = field(default=False, init=False)
    _queue: list[tuple[O, Deferred[Any]]] = field(factory=list, init=False)
    _retry_singly: int = field(default=0, init=False)
    _busy: bool = field(default=False, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)

    def write(self, operation: O) -> Deferred[Any]:
        """Run an operation in the next transaction; its Deferred fires after the commit.

        The operation may run more than once, each time from the same state. Cancelling the
        Deferred stops the waiting, never the operation.
        """
        result: Deferred[Any] = Deferred()
        self._queue.append((operation, result))
        if not self._busy:
            self._busy = True
            # Not at once: other writes of this turn of the reactor join the transaction.
            self._clock.callLater(0, self._next)
        return result

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no write is queued or in progress."""
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
        running = self._transact([operation for operation, _ in batch])
        running.addCallbacks(self._committed, self._failed, (batch,), {}, (batch,))

    def _take(self) -> list[tuple[O, Deferred[Any]]]:
        if self._retry_singly:
            self._retry_singly -= 1
            count = 1
        else:
            # Of a long queue, half: the other half is written while results of this one
            # are returned.
            count = min(self._max_batch, max(MIN_BATCH, len(self._queue) // 2))
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    def mark_healthy(self) -> None:
        """Note that the database has just taken a write by another way."""
        self.failing = False

    def _committed(
        self, committed: tuple[list[Any], Changes], batch: Sequence[tuple[O, Deferred[Any]]]
    ) -> None:
        results, changes = committed
        self.mark_healthy()
        goes_on = bool(self._queue)
        if goes_on:
            self._next()
        changes.operations = len(batch)
        self._publish(changes)
        for (_, waiter), result in zip(batch, results, strict=True):
            waiter.callback(result)
        if not goes_on:
            self._next()

    def _failed(self, failure: Failure, batch: Sequence[tuple[O, Deferred[Any]]]) -> None:
        fails_all = self._fails_all(failure)
        self.failing = self.failing or fails_all
        if len(batch) > 1 and not fails_all:
            self._queue[:0] = batch
            self._retry_singly = len(batch)
        else:
            for _, waiter in batch:
                waiter.errback(failure)
        self._next()
