"""What every store that speaks SQL does alike: each method of the port, as one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import Deferred, succeed

from ..core.task import Definition, State, Task
from ..core.times import Key
from . import agenda, ahead, behind, reads, writes
from .codec import definition_values
from .group_commit import GroupCommit
from .interface import (
    ActivitySnapshot,
    CalendarData,
    Cursor,
    Deleted,
    DueLoad,
    DueScan,
    MinuteOutcomes,
    MinuteSpan,
    Page,
    PutPreview,
    PutResult,
    Rescheduled,
    StoreStats,
    TaskVersion,
)

T = TypeVar("T")


def shield(writing: Deferred[T]) -> Deferred[T]:
    """Wait for a write, which goes on, and has its consequences, if nobody waits any more.

    Klein cancels a handler, and what it waits for, when its client hangs up.
    """
    waiting: Deferred[T] = Deferred()
    writing.addCallbacks(waiting.callback, waiting.errback)
    return waiting


class SqlStore(ABC):
    """Most of :class:`callme.store.port.Store`; claims and records are each database's own."""

    SIZE: ClassVar[str]
    """A query for the bytes that the tasks and their attempts take."""
    _values = staticmethod(definition_values)

    _commits: GroupCommit[Any]

    @abstractmethod
    def _write(self, operation: Callable[[Any], T]) -> Deferred[T]:
        """Run an operation on a cursor, in a transaction that is committed and synced."""

    @abstractmethod
    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        """Run a query on a cursor that sees one state of the database."""

    def _time(self, cursor: Any, now: float) -> float:
        """Return what counts as now: seconds since 1970."""
        return now

    def put(
        self, definition: Definition, now: float, *, create: bool = True, replace: bool = False
    ) -> Deferred[PutResult]:
        return self._write(
            partial(writes.put, definition=definition, now=now, create=create, replace=replace)
        )

    def get(self, key: Key) -> Deferred[Task | None]:
        return self._read(partial(reads.get, key=key))

    def changed(
        self, seen: Mapping[Key, TaskVersion | None], limit: int
    ) -> Deferred[Mapping[Key, Task | None]]:
        return self._read(partial(reads.changed, seen=seen, limit=limit))

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
        return self._read(
            partial(
                reads.page,
                task_name=task_name,
                start_from=start_from,
                limit=limit,
                after=after,
                state=state,
                prefix=prefix,
            )
        )

    def delete(self, key: Key) -> Deferred[Deleted | None]:
        return self._write(partial(writes.delete, key=key))

    def delete_name(self, task_name: str) -> Deferred[Deleted | None]:
        return self._write(partial(writes.delete_name, task_name=task_name))

    def reschedule(
        self, key: Key, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        return self._write(
            partial(
                writes.reschedule,
                key=key,
                trigger_at=trigger_at,
                now=now,
                include_all_states=include_all_states,
            )
        )

    def reschedule_name(
        self, task_name: str, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        return self._write(
            partial(
                writes.reschedule_name,
                task_name=task_name,
                trigger_at=trigger_at,
                now=now,
                include_all_states=include_all_states,
            )
        )

    def due(self, now: float) -> Deferred[DueScan]:
        def due(cursor: Cursor) -> DueScan:
            return writes.due(cursor, self._time(cursor, now), self._values)

        return self._write(due)

    def purge(self, finished_before: float, limit: int) -> Deferred[int]:
        return self._write(partial(writes.purge, finished_before=finished_before, limit=limit))

    def waiting(self, now: float) -> Deferred[Sequence[str]]:
        return self._read(partial(reads.waiting, now=now))

    def backlog(self, now: float) -> Deferred[int]:
        def backlog(cursor: Cursor) -> int:
            return reads.backlog(cursor, self._time(cursor, now))

        return self._read(backlog)

    def figures(self, now: float, *, count: bool = False) -> Deferred[StoreStats]:
        def figures(cursor: Cursor) -> StoreStats:
            return reads.figures(cursor, self._time(cursor, now), self.SIZE, count)

        return self._read(figures)

    def agenda(
        self, task_name: str | None, until: int, failed_since: int, limit: int
    ) -> Deferred[CalendarData | None]:
        return self._read(
            partial(
                agenda.agenda,
                task_name=task_name,
                until=until,
                failed_since=failed_since,
                limit=limit,
            )
        )

    def beside(
        self, definitions: Sequence[Definition], now: float
    ) -> Deferred[Sequence[PutPreview]]:
        def beside(cursor: Cursor) -> Sequence[PutPreview]:
            return ahead.beside(cursor, definitions, self._time(cursor, now))

        return self._read(beside)

    def due_load(
        self,
        begin: int,
        until: int,
        *,
        find_saturated: Callable[[Mapping[int, int]], MinuteSpan | None],
        busy_above: int,
    ) -> Deferred[DueLoad]:
        return self._read(
            partial(
                ahead.due_load,
                begin=begin,
                until=until,
                find_saturated=find_saturated,
                busy_above=busy_above,
            )
        )

    def history(self, since: int) -> Deferred[Sequence[MinuteOutcomes]]:
        return self._read(partial(behind.history, since=since))

    def glance(self, limit: int) -> Deferred[ActivitySnapshot]:
        return self._read(partial(behind.glance, limit=limit))

    def writable(self) -> Deferred[bool]:
        return succeed(not self._commits.failing)
