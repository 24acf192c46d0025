"""A store that says which tasks it has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from attrs import define
from twisted.internet.defer import Deferred

from ..core.task import Attempt, Claim, Definition, Reason, State, Task, Transition
from ..core.times import Key
from .interface import (
    ActivitySnapshot,
    CalendarData,
    Deleted,
    DueLoad,
    DueScan,
    MinuteOutcomes,
    MinuteSpan,
    Page,
    Put,
    PutPreview,
    PutResult,
    Rescheduled,
    Store,
    StoreStats,
    TaskVersion,
)


class Observer:
    """Is told what happens, and does nothing about it: what counts is made of this.

    Every method is called on the reactor's thread, once for each thing that happened, and must
    return at once.
    """

    def attempt_ended(self, claim: Claim, attempt: Attempt) -> None:
        """Hear that an attempt ended, or that one was found which nobody saw the end of."""

    def task_finished(self, state: State, reason: Reason | None) -> None:
        """Hear that a task ended, and that this is on record."""

    def claim_lost(self) -> None:
        """Hear that the result of an attempt was not stored, as its claim was no longer held."""

    def committed(self, operations: int) -> None:
        """Hear that a transaction with so many operations was committed."""


T = TypeVar("T")


class Watcher(Protocol):
    """Whoever wants to know of changes.

    :ivar watching: whether it wants to know of any just now.
    """

    @property
    def watching(self) -> bool: ...

    def changed(self, keys: Iterable[Key]) -> None:
        """Take note that these tasks may have changed, or are gone."""

    def changed_name(self, task_name: str) -> None:
        """Take note that all tasks of a name may have changed, or are gone."""


@define(eq=False)
class WatchedStore:
    """Implements :class:`callme.store.port.Store` by another one, and tells of what it commits.

    What is purged is not told: it ended long ago.
    """

    _store: Store
    _watcher: Watcher

    def _telling(self, writing: Deferred[T], changed: Callable[[T], Iterable[Key]]) -> Deferred[T]:
        """Tell of what a write has changed, once it is committed."""

        def written(result: T) -> T:
            if self._watcher.watching:
                self._watcher.changed(changed(result))
            return result

        return writing.addCallback(written)

    def _telling_name(self, writing: Deferred[T], task_name: str) -> Deferred[T]:
        def written(result: T) -> T:
            self._watcher.changed_name(task_name)
            return result

        return writing.addCallback(written)

    def put(
        self, definition: Definition, now: float, *, create: bool = True, replace: bool = False
    ) -> Deferred[PutResult]:
        putting = self._store.put(definition, now, create=create, replace=replace)
        return self._telling(
            putting, lambda result: [definition.key] if result.put is Put.REPLACED else ()
        )

    def put_many(
        self, tasks: Sequence[tuple[Definition, bool]], now: float
    ) -> Deferred[Sequence[PutResult]]:
        # None of them is replaced, and nobody waits for a task that was not there.
        return self._store.put_many(tasks, now)

    def get(self, key: Key) -> Deferred[Task | None]:
        return self._store.get(key)

    def changed(
        self, seen: Mapping[Key, TaskVersion | None], limit: int
    ) -> Deferred[Mapping[Key, Task | None]]:
        return self._store.changed(seen, limit)

    def page(
        self,
        *,
        task_name: str | None = None,
        start_from: Key | None = None,
        limit: int = 100,
        after: int | None = None,
        state: State | None = None,
        prefix: str = "",
    ) -> Deferred[Page | None]:
        return self._store.page(
            task_name=task_name,
            start_from=start_from,
            limit=limit,
            after=after,
            state=state,
            prefix=prefix,
        )

    def delete(self, key: Key) -> Deferred[Deleted | None]:
        return self._telling(self._store.delete(key), lambda _: [key])

    def delete_name(self, task_name: str) -> Deferred[Deleted | None]:
        return self._telling_name(self._store.delete_name(task_name), task_name)

    def reschedule(
        self, key: Key, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        moving = self._store.reschedule(key, trigger_at, now, include_all_states=include_all_states)
        return self._telling(moving, lambda _: [key])

    def reschedule_name(
        self, task_name: str, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        moving = self._store.reschedule_name(
            task_name, trigger_at, now, include_all_states=include_all_states
        )
        return self._telling_name(moving, task_name)

    def due(self, now: float) -> Deferred[DueScan]:
        return self._telling(self._store.due(now), lambda due: due.too_late)

    def claim(self, shares: Mapping[str, int], now: float) -> Deferred[Sequence[Claim]]:
        claiming = self._store.claim(shares, now)
        return self._telling(claiming, lambda claims: [one.definition.key for one in claims])

    def record(self, claim: Claim, transition: Transition, now: float) -> Deferred[bool]:
        recording = self._store.record(claim, transition, now)
        return self._telling(recording, lambda _: [claim.definition.key])

    def abandoned(self, now: float, *, every: bool = False) -> Deferred[Sequence[Claim]]:
        return self._store.abandoned(now, every=every)

    def waiting(self, now: float) -> Deferred[Sequence[str]]:
        return self._store.waiting(now)

    def purge(self, finished_before: float, limit: int) -> Deferred[int]:
        return self._store.purge(finished_before, limit)

    def backlog(self, now: float) -> Deferred[int]:
        return self._store.backlog(now)

    def figures(self, now: float, *, count: bool = False) -> Deferred[StoreStats]:
        return self._store.figures(now, count=count)

    def agenda(
        self, task_name: str | None, until: int, failed_since: int, limit: int
    ) -> Deferred[CalendarData | None]:
        return self._store.agenda(task_name, until, failed_since, limit)

    def beside(
        self, definitions: Sequence[Definition], now: float
    ) -> Deferred[Sequence[PutPreview]]:
        return self._store.beside(definitions, now)

    def due_load(
        self,
        begin: int,
        until: int,
        *,
        find_saturated: Callable[[Mapping[int, int]], MinuteSpan | None],
        busy_above: int,
    ) -> Deferred[DueLoad]:
        return self._store.due_load(
            begin, until, find_saturated=find_saturated, busy_above=busy_above
        )

    def history(self, since: int) -> Deferred[Sequence[MinuteOutcomes]]:
        return self._store.history(since)

    def glance(self, limit: int) -> Deferred[ActivitySnapshot]:
        return self._store.glance(limit)

    def writable(self) -> Deferred[bool]:
        return self._store.writable()

    def close(self) -> Deferred[None]:
        return self._store.close()
