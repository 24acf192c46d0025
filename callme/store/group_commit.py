"""Group commit: writes that arrive during a transaction share the next one.

A commit that is synced to disk costs the same for one write as for hundreds. For a remote database,
several transactions are in flight at a time, so that few writes wait for two round trips.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from .changes import Changes
from .database import Operation, Store, Unfinished
from .interface import StoreUnavailable

O = TypeVar("O")  # noqa: E741 - the operation
_Queued: TypeAlias = tuple[O, Deferred[Any], float]
"""An operation, the Deferred of its result, and the time since which it waits."""
MIN_BATCH = 100
"""Number of queued writes up to which a transaction takes all of them."""
PARALLEL_AFTER_SECONDS = 0.004
"""Seconds that a write waits for a transaction in flight before the next transaction begins.

Short transactions are faster in sequence, because each then takes more writes."""
MAX_AGE_SECONDS = 4
"""Age in seconds from which a queued write fails together with a transaction in which every write
would fail.

A write therefore waits for the time limit of at most one transaction besides its own."""
MAX_AGE_SINGLY_SECONDS = 18
"""The same for a transaction that may have failed because of a single write."""


@define(eq=False, kw_only=True)
class GroupCommit(Generic[O]):
    """Queue of operations, which runs the queued operations in one transaction, in order.

    If an operation is :class:`callme.store.database.Unfinished` after a transaction, its second
    part becomes the first of the queue.

    Each caller receives the result or the error of its own operation, after the commit. If one
    operation fails, the transaction is rolled back, and each of its operations is repeated in a
    transaction of its own, so that one failure does not affect the others. Writes that have been
    queued for long then fail as well: to clients, a timely response matters more than a retry.

    :param transact: runs operations in one transaction, on another thread, and commits it;
        returns their results and their changes.
    :param fails_all: returns whether every operation would fail with an error, so that repeating
        them singly is useless.
    :param publish: called with the changes of each commit.
    :param max_batch: the maximum number of operations in a transaction.
    :param keys: returns the keys that an operation writes; ``None`` for an operation that must not
        run beside other transactions. Operations with a common key never run concurrently.
    :param max_parallel: the maximum number of transactions in flight.
    :ivar failing: whether a transaction failed with an error that affects every operation, and no
        write has succeeded since, in this queue or outside it (:meth:`mark_healthy`).
    """

    _clock: IReactorTime
    _transact: Callable[[Sequence[O]], Deferred[tuple[list[Any], Changes]]]
    _fails_all: Callable[[Failure], bool]
    _publish: Callable[[Changes], None]
    _max_batch: int = 500
    _keys: Callable[[O], Collection[Hashable] | None] = lambda _: None
    _max_parallel: int = 1
    failing: bool = field(default=False, init=False)
    _queue: list[_Queued[O]] = field(factory=list, init=False)
    _retry_singly: int = field(default=0, init=False)
    _in_flight: int = field(default=0, init=False)
    # The keys of the transactions in flight; None if one is in flight that must run alone.
    _keys_in_flight: set[Hashable] | None = field(factory=set, init=False)
    _starting: IDelayedCall | None = field(default=None, init=False)
    _idle: list[Deferred[None]] = field(factory=list, init=False)

    def write(self, operation: O) -> Deferred[Any]:
        """Run an operation in the next transaction; its Deferred fires after the commit.

        The operation may run more than once; only the committed run has an effect. Cancelling the
        Deferred discards the result, but does not stop the operation.
        """
        result: Deferred[Any] = Deferred()
        self._queue.append((operation, result, self._clock.seconds()))
        self._start_soon()
        return result

    def _start_soon(self) -> None:
        """Schedule the next transaction, if none is in flight, for the end of the reactor's turn.

        Other writes of the same turn join it.
        """
        if self._starting is None and self._in_flight < self._max_parallel:
            delay = PARALLEL_AFTER_SECONDS if self._in_flight else 0
            self._starting = self._clock.callLater(delay, self._start)

    def _start(self) -> None:
        self._starting = None
        self._next()

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no write is queued or in progress."""
        idle: Deferred[None] = Deferred()
        if self._queue or self._in_flight:
            self._idle.append(idle)
        else:
            idle.callback(None)
        return idle

    def _next(self) -> None:
        """Begin a transaction, if there are queued writes that may run beside those in flight."""
        batch, keys = self._take()
        if batch:
            self._in_flight += 1
            running = self._transact([operation for operation, _, _ in batch])
            running.addCallbacks(self._committed, self._failed, (batch, keys), {}, (batch, keys))
        if batch and self._queue:
            self._start_soon()
        elif not self._in_flight:
            self._became_idle()

    def _became_idle(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.callback(None)

    def _take(self) -> tuple[list[_Queued[O]], set[Hashable]]:
        """Remove the next transaction's operations from the queue; return them and their keys."""
        if self._in_flight and (self._keys_in_flight is None or self._retry_singly):
            return [], set()
        count = self._next_count()
        keys, parallel = self._parallel(count) if self._max_parallel > 1 else (set(), 0)
        if self._in_flight:
            count = parallel
        batch, self._queue = self._queue[:count], self._queue[count:]
        if self._keys_in_flight is not None and parallel >= len(batch):
            self._keys_in_flight |= keys
        else:
            self._keys_in_flight = None
        return batch, keys

    def _next_count(self) -> int:
        if self._retry_singly:
            self._retry_singly -= 1
            return 1
        # A long queue is split: its second half is written while the results of the first half
        # are returned.
        return min(self._max_batch, max(MIN_BATCH, len(self._queue) // 2))

    def _parallel(self, count: int) -> tuple[set[Hashable], int]:
        """Return the keys and the number of the first operations that may run beside others."""
        keys: set[Hashable] = set()
        in_flight = self._keys_in_flight or set()
        for number, (operation, _, _) in enumerate(self._queue[:count]):
            own = self._keys(operation)
            if own is None or not in_flight.isdisjoint(own):
                return keys, number
            keys.update(own)
        return keys, count

    def _ended(self, keys: set[Hashable]) -> None:
        """Begin the next transaction after one has ended."""
        self._in_flight -= 1
        if self._keys_in_flight is None:
            self._keys_in_flight = set()
        else:
            self._keys_in_flight -= keys
        self._next()

    def mark_healthy(self) -> None:
        """Record that a write outside of this queue has succeeded."""
        self.failing = False

    def mark_failing(self) -> None:
        """Record that a write outside of this queue has found the database unusable."""
        self.failing = True

    def _committed(
        self,
        committed: tuple[list[Any], Changes],
        batch: Sequence[_Queued[O]],
        keys: set[Hashable],
    ) -> None:
        results, changes = committed
        self.mark_healthy()
        pairs = list(zip(batch, results, strict=True))
        self._queue[:0] = [
            (result.operation, waiter, since)
            for (_, waiter, since), result in pairs
            if isinstance(result, Unfinished)
        ]
        ends = [(one, result) for one, result in pairs if not isinstance(result, Unfinished)]
        goes_on = bool(self._queue)
        if goes_on:
            self._ended(keys)
        if ends:
            changes.operations = len(ends)
            self._publish(changes)
        for (_, waiter, _), result in ends:
            waiter.callback(result)
        if not goes_on:
            self._ended(keys)

    def _failed(self, failure: Failure, batch: Sequence[_Queued[O]], keys: set[Hashable]) -> None:
        fails_all = self._fails_all(failure)
        self.failing = self.failing or fails_all
        failed = list(batch)
        if len(batch) > 1 and not fails_all:
            self._queue[:0] = batch
            self._retry_singly += len(batch)
            failed = []
        if fails_all:
            failed += self._take_older(MAX_AGE_SECONDS)
        elif failure.check(StoreUnavailable):
            failed += self._take_older(MAX_AGE_SINGLY_SECONDS)
        for _, waiter, _ in failed:
            waiter.errback(failure)
        self._ended(keys)

    def _take_older(self, seconds: float) -> list[_Queued[O]]:
        """Remove from the queue, and return, the writes that have waited for some seconds."""
        before = self._clock.seconds() - seconds
        older = [queued for queued in self._queue if queued[2] <= before]
        singly = self._queue[: self._retry_singly]
        self._retry_singly = sum(since > before for _, _, since in singly)
        self._queue = [queued for queued in self._queue if queued[2] > before]
        return older


class GroupCommitStore(Store):
    """Store whose writes are committed in groups.

    :param node: returns the daemon's name, which is stored with attempts.
    :param clock: schedules the timers.
    :cvar _max_parallel: the maximum number of transactions in flight.
    """

    _max_parallel = 1

    def __init__(self, node: Callable[[], str], clock: IReactorTime) -> None:
        super().__init__()
        self._node = node
        self._clock = clock
        self._commits: GroupCommit[Operation] = GroupCommit(
            clock=clock,
            transact=self._transact,
            fails_all=self._fails_all,
            publish=self.changes.publish,
            keys=self._keys,
            max_parallel=self._max_parallel,
        )

    @property
    def is_writable(self) -> bool:
        return not self._commits.failing

    def _write(self, operation: Operation) -> Deferred[Any]:
        return self._commits.write(operation)

    @abstractmethod
    def _transact(self, operations: Sequence[Operation]) -> Deferred[tuple[list[Any], Changes]]:
        """Run operations in one transaction; return their results and changes."""

    def _keys(self, _: Operation) -> Collection[Hashable] | None:
        """Return the keys that an operation writes: see :class:`GroupCommit`."""
        return None

    @staticmethod
    def _fails_all(failure: Failure) -> bool:
        return failure.check(StoreUnavailable) is not None

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    @abstractmethod
    async def _close(self) -> None:
        """Complete the queued writes, and close the database."""
