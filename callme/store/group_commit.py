"""Group commit: writes that arrive during a transaction share the next one.

A commit that is synced to disk costs the same for one write as for hundreds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from .changes import Changes
from .database import Operation, Store
from .interface import StoreUnavailable

O = TypeVar("O")  # noqa: E741 - the operation
_Queued: TypeAlias = tuple[O, Deferred[Any], float]
"""An operation, the Deferred of its result, and the time since which it waits."""
MIN_BATCH = 100
"""Number of queued writes up to which a transaction takes all: the more, the less each costs."""
MAX_AGE_SECONDS = 4
"""Age of a queued write from which on it fails with a transaction that no write would survive.

A write thus waits for at most one more time limit of a transaction than its own."""
MAX_AGE_SINGLY_SECONDS = 18
"""The same where a single write of the transaction may be at fault, in seconds."""


@define(eq=False, kw_only=True)
class GroupCommit(Generic[O]):
    """Queue of operations that runs all that are queued in one transaction, in order.

    Each caller gets the result or the error of its own operation, after the commit. If one
    operation fails, the transaction is undone and each of its operations is repeated in a
    transaction of its own, so that none suffers from its neighbours. Writes that have waited for
    long then fail with it: clients need a response in time more than one more attempt.

    :param transact: runs operations in one transaction, on another thread, and commits it;
        returns their results and what they changed.
    :param fails_all: returns whether an error would meet every operation, so that it is useless
        to repeat them one by one.
    :param publish: called with the changes of each commit.
    :param max_batch: the maximum number of operations in a transaction.
    :ivar failing: whether a transaction met an error that every operation would meet, and no
        write has succeeded since, in this queue or outside (:meth:`mark_healthy`).
    """

    _clock: IReactorTime
    _transact: Callable[[Sequence[O]], Deferred[tuple[list[Any], Changes]]]
    _fails_all: Callable[[Failure], bool]
    _publish: Callable[[Changes], None]
    _max_batch: int = 500
    failing: bool = field(default=False, init=False)
    _queue: list[_Queued[O]] = field(factory=list, init=False)
    _retry_singly: int = field(default=0, init=False)
    _busy: bool = field(default=False, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)

    def write(self, operation: O) -> Deferred[Any]:
        """Run an operation in the next transaction; its Deferred fires after the commit.

        The operation may run more than once, each time from the same state. Cancelling the
        Deferred drops the result, not the operation.
        """
        result: Deferred[Any] = Deferred()
        self._queue.append((operation, result, self._clock.seconds()))
        if not self._busy:
            self._busy = True
            # Deferred, so that other writes of this turn of the reactor join the transaction.
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
        running = self._transact([operation for operation, _, _ in batch])
        running.addCallbacks(self._committed, self._failed, (batch,), {}, (batch,))

    def _take(self) -> list[_Queued[O]]:
        if self._retry_singly:
            self._retry_singly -= 1
            count = 1
        else:
            # A long queue is halved: the second half is written while the results of the first
            # are returned.
            count = min(self._max_batch, max(MIN_BATCH, len(self._queue) // 2))
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    def mark_healthy(self) -> None:
        """Record that a write outside of this queue has succeeded."""
        self.failing = False

    def mark_failing(self) -> None:
        """Record that a write outside of this queue has found the database unusable."""
        self.failing = True

    def _committed(self, committed: tuple[list[Any], Changes], batch: Sequence[_Queued[O]]) -> None:
        results, changes = committed
        self.mark_healthy()
        goes_on = bool(self._queue)
        if goes_on:
            self._next()
        changes.operations = len(batch)
        self._publish(changes)
        for (_, waiter, _), result in zip(batch, results, strict=True):
            waiter.callback(result)
        if not goes_on:
            self._next()

    def _failed(self, failure: Failure, batch: Sequence[_Queued[O]]) -> None:
        fails_all = self._fails_all(failure)
        self.failing = self.failing or fails_all
        failed: Sequence[_Queued[O]] = batch
        if len(batch) > 1 and not fails_all:
            self._queue[:0] = batch
            self._retry_singly = len(batch)
            failed = []
        if fails_all:
            failed = [*failed, *self._take_older(MAX_AGE_SECONDS)]
        elif failure.check(StoreUnavailable):
            failed = [*failed, *self._take_older(MAX_AGE_SINGLY_SECONDS)]
        for _, waiter, _ in failed:
            waiter.errback(failure)
        self._next()

    def _take_older(self, seconds: float) -> list[_Queued[O]]:
        """Remove the writes that have waited for some seconds from the queue."""
        before = self._clock.seconds() - seconds
        older = [queued for queued in self._queue if queued[2] <= before]
        singly = self._queue[: self._retry_singly]
        self._retry_singly = sum(since > before for _, _, since in singly)
        self._queue = [queued for queued in self._queue if queued[2] > before]
        return older


class GroupCommitStore(Store):
    """A store whose writes go through a group commit.

    :param node: returns the daemon's name, which attempts carry.
    :param clock: sets the timers.
    """

    def __init__(self, node: Callable[[], str], clock: IReactorTime) -> None:
        super().__init__()
        self._node = node
        self._clock = clock
        self._commits: GroupCommit[Operation] = GroupCommit(
            clock=clock,
            transact=self._transact,
            fails_all=self._fails_all,
            publish=self.changes.publish,
        )

    @property
    def is_writable(self) -> bool:
        return not self._commits.failing

    def _write(self, operation: Operation) -> Deferred[Any]:
        return self._commits.write(operation)

    @abstractmethod
    def _transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        """Run operations in one transaction; return their results and changes."""

    @staticmethod
    def _fails_all(failure: Failure) -> bool:
        return failure.check(StoreUnavailable) is not None

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    @abstractmethod
    async def _close(self) -> None:
        """Finish the writes in progress and release the database."""
