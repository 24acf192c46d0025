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
    """

    _clock: IReactorTime
    _transact: Callable[[Callable[[C], list[Any]]], Deferred[list[Any]]]
    _fails_all: Callable[[Failure], bool]
    _most: int = 500
    _waiting: list[tuple[Operation[C], Deferred[Any]]] = field(factory=list, init=False)
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
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if not batch:
            self._busy = False
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)
            return
        self._run(batch).addBoth(lambda _: self._next())

    def _run(self, batch: Sequence[tuple[Operation[C], Deferred[Any]]]) -> Deferred[None]:
        operations = [operation for operation, _ in batch]

        def committed(results: list[Any]) -> None:
            for (_, waiter), result in zip(batch, results, strict=True):
                waiter.callback(result)

        def failed(failure: Failure) -> Deferred[None] | None:
            if len(batch) > 1 and not self._fails_all(failure):
                return self._run_each(batch)
            for _, waiter in batch:
                waiter.errback(failure)
            return None

        running = self._transact(lambda connection: [one(connection) for one in operations])
        return running.addCallbacks(committed, failed)

    async def _each(self, batch: Sequence[tuple[Operation[C], Deferred[Any]]]) -> None:
        for one in batch:
            await self._run([one])

    def _run_each(self, batch: Sequence[tuple[Operation[C], Deferred[Any]]]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._each(batch))
