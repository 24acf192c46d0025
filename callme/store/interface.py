"""The store as the rest of callme sees it, whatever database stands behind it.

One method is one transaction. A write's Deferred fires once it is committed and
synced to disk: an answer that waits for it promises nothing that can be lost.
Cancelling a Deferred stops the waiting, never the transaction.

Every method fails with :class:`StoreUnavailable` while the database cannot be
read or written; nothing is half done then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from ..core.task import Claim, Definition, Reason, State, Task, Transition
from ..core.times import Key


@frozen
class Event:
    """A task in a calendar.

    :ivar changed_at: when it last changed, milliseconds since 1970.
    :ivar last_attempt: the number of its last attempt; 0 before the first.
    :ivar host: the ``host:port`` that it calls.
    """

    task: Task
    changed_at_ms: int
    last_attempt: int
    host: str


@frozen
class CalendarData:
    """What a calendar is made of.

    :ivar scheduled: the next ones first.
    :ivar failed: the latest first.
    :ivar more_scheduled: whether there are more than those.
    :ivar more_failed: the same of the failed ones.
    """

    scheduled: Sequence[Event] = ()
    failed: Sequence[Event] = ()
    more_scheduled: bool = False
    more_failed: bool = False


@frozen
class MinuteLoad:
    """Calls that are to be made in one minute.

    :ivar host: the ``host:port`` that they go to; ``None`` for those to all hosts.
    :ivar expires_at: the earliest second from which on one of them may not start any more.
    """

    minute: int
    host: str | None
    calls: int
    expires_at: int


MinuteSpan = tuple[int, int]
"""The first and the last minute of a span, each by its first second since 1970."""


@frozen(kw_only=True)
class DueLoad:
    """The calls due in a period, read at one moment.

    :ivar by_minute: the number of calls of each minute that has any, in order.
    :ivar fleet: the calls to all hosts, of the minutes in which they may wait for a slot.
    :ivar hosts: the calls to single hosts, of the hosts with many calls in a minute: at most
        :data:`MAX_LOADS`, the earliest first.
    """

    by_minute: Mapping[int, int]
    fleet: Sequence[MinuteLoad]
    hosts: Sequence[MinuteLoad]


@frozen
class MinuteOutcomes:
    """The tasks that ended in one minute.

    :ivar lateness: how many of their first attempts were how late, by milliseconds that are
        rounded down to two digits. Later attempts are late by what ``retry_delay`` asks, and
        what failed as ``too_late`` had none.
    """

    minute: int
    succeeded: int
    failed: int
    lateness: Mapping[int, int] = field(factory=dict)


class Cursor(Protocol):
    """Of Python's DB-API (PEP 249) what is used here.

    The statements are written as SQLite has them: ``?`` for a value, and ``/* FOR UPDATE */``
    where a database with several writers must lock the rows that it reads.
    """

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run a statement."""

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement for each of many rows of values."""

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""

    def __iter__(self) -> Iterator[Any]: ...


HEARTBEAT_SECONDS = 5
"""How often a daemon says that it lives, where others share its database."""

MAX_LOADS = 2000
"""Loads of single hosts that one query returns."""


MAX_BACKLOG_COUNT = 10_000
"""How many tasks that are due :meth:`Store.figures` counts; more may take 0.1 s."""

PAGE_CHARACTERS = 1024 * 1024
"""Characters of the tasks of a page, after which no further one is put on it."""


class StoreUnavailable(Exception):
    """The database cannot be used just now; its text says why. Worth trying again."""


class CannotOpen(Exception):
    """The database cannot be used at all; its text is one line that says why."""


class Put(Enum):
    """What a put found, and did."""

    CREATED = "no task stood under the key; this one does now"
    REPLACED = "the standing task was scheduled and has the new definition now"
    UNCHANGED = "the same definition stands there already"
    DIFFERENT = "another definition stands there, and was left alone"
    ABSENT = "no task stands under the key, and none was created"


@frozen
class PutResult:
    """The answer to a put: what was done, and the task that stands there now."""

    put: Put
    task: Task | None


@frozen
class TaskVersion:
    """What tells a task from what it becomes next.

    :ivar created_at: another once it was replaced.
    :ivar attempts_used: one more after an attempt that left it ``scheduled``.
    """

    state: State
    created_at_ms: int
    attempts_used: int

    @classmethod
    def of(cls, task: Task) -> TaskVersion:
        """Return what tells this task from what it becomes next."""
        return cls(task.state, task.created_at_ms, task.attempts_used)


@frozen
class Page:
    """Some tasks in the order of their keys, and where the rest begin, if there is a rest."""

    tasks: Sequence[Task]
    next: Key | None


@frozen
class Rescheduled:
    """What a reschedule did.

    :ivar moved: the old and the new key of each task moved.
    :ivar skipped: the key of each task left alone, and why.
    :ivar conflict: for one task: why nothing was done; ``None`` otherwise.
    :ivar due: the hosts of the moved tasks.
    """

    moved: Sequence[tuple[Key, Key]] = ()
    skipped: Sequence[tuple[Key, str]] = ()
    conflict: str | None = None
    hosts: Sequence[str] = ()


@frozen
class Deleted:
    """What a delete did: how many tasks are gone, and which are left as they are running."""

    count: int
    running: Sequence[Key] = ()


@frozen
class DueScan:
    """What a tick finds.

    :ivar hosts: the ``host:port`` of every task whose minute has come.
    :ivar too_late: tasks that were failed as ``too_late`` just now.
    :ivar more: whether there are more of those than one transaction took.
    """

    hosts: Sequence[str]
    too_late: Sequence[Key]
    more: bool


@frozen
class StoreStats:
    """How much there is in the store.

    :ivar backlog: tasks that are due and wait to be claimed, up to :data:`MAX_BACKLOG_COUNT`.
    :ivar oldest_due: how many seconds the longest due of them has been due; 0 without any.
    :ivar size: bytes that the tasks and their attempts take in the database.
    :ivar tasks: how many tasks there are of each state and, of failed ones, each reason; of what
        there is none, 0. ``None`` unless they were asked to be counted.
    """

    backlog: int
    oldest_due: float
    size: int
    tasks: Mapping[tuple[State, Reason | None], int] | None = None


@frozen
class InFlightCall:
    """A call that is being made.

    :ivar host: the ``host:port`` that it goes to.
    :ivar number: the number of the attempt.
    :ivar since: when the task was taken to be called, milliseconds since 1970.
    :ivar node: the name of the daemon that makes it.
    """

    key: Key
    host: str
    number: int
    since: int
    node: str | None


@frozen
class ActivitySnapshot:
    """What is going on, and what failed last.

    :ivar running: how many tasks are ``running``.
    :ivar in_flight: some of them, those first that have been for longest.
    :ivar failures: tasks that failed, the last one first.
    """

    running: int
    in_flight: Sequence[InFlightCall]
    failures: Sequence[Task]


@frozen
class StartupCounts:
    """How the tasks stand as a daemon starts.

    :ivar scheduled: how many are ``scheduled``.
    :ivar due: ... and due: where no other daemon runs, they were missed.
    :ivar running: how many are ``running``: where no other daemon runs, they were interrupted.
    """

    scheduled: int
    due: int
    running: int


@frozen
class PutPreview:
    """What is to be known of a task before it is put.

    :ivar standing: the task that stands under its key.
    :ivar calls: how many other tasks are due when it is.
    :ivar calls_to_host: ... of them to its host.
    """

    standing: Task | None
    calls: int
    calls_to_host: int


class Store(Protocol):
    """Tasks, durable."""

    def put(
        self, definition: Definition, now: float, *, create: bool = True, replace: bool = False
    ) -> Deferred[PutResult]:
        """Create a task, or replace a scheduled one, if the flags allow."""

    def put_many(
        self, tasks: Sequence[tuple[Definition, bool]], now: float
    ) -> Deferred[Sequence[PutResult]]:
        """Put tasks, in order, in one transaction; each with whether it may be created.

        The tasks that it creates are left out of the results: what is in them is known.
        """

    def get(self, key: Key) -> Deferred[Task | None]:
        """Return one task with its attempts, or ``None``."""

    def changed(
        self, seen: Mapping[Key, TaskVersion | None], limit: int
    ) -> Deferred[Mapping[Key, Task | None]]:
        """Return those of some tasks that are no longer as they were seen, up to a number.

        :param seen: by key; what was seen as ``None`` is returned as it is.
        :param limit: how many to return; where there are as many there may be more.
        :return: each with its attempts; ``None`` for one that is not there.
        """

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
        """Return tasks ordered by name, then time, without payloads and attempts.

        Where they are large, a page ends before its ``limit``: see :data:`PAGE_CHARACTERS`.

        :param task_name: only the tasks of this name; ``None`` is answered where
            it has none at all.
        :param start_from: the first key to return, inclusive.
        :param after: only tasks whose ``trigger_at`` is later than this second.
        :param prefix: only tasks whose names begin so.
        """

    def delete(self, key: Key) -> Deferred[Deleted | None]:
        """Forget one task unless it is running; ``None`` when there is none."""

    def delete_name(self, task_name: str) -> Deferred[Deleted | None]:
        """Forget all tasks of a name but running ones; ``None`` when there are none."""

    def reschedule(
        self, key: Key, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        """Move one failed (or, with ``include_all_states``, not running) task to a new minute."""

    def reschedule_name(
        self, task_name: str, trigger_at: int, now: float, *, include_all_states: bool
    ) -> Deferred[Rescheduled | None]:
        """Move all such tasks of a name to the first free minutes from ``trigger_at`` on."""

    def due(self, now: float) -> Deferred[DueScan]:
        """Fail what can no longer start, and say which hosts have tasks due."""

    def claim(self, shares: Mapping[str, int], now: float) -> Deferred[Sequence[Claim]]:
        """Take due tasks to be called now: the longest due first, up to a number for each host.

        Each is ``running``, under a lease that outlasts its longest call, with one
        more attempt used.
        """

    def record(self, claim: Claim, transition: Transition, now: float) -> Deferred[bool]:
        """Store what became of a claimed task, and its attempt; safe to repeat.

        A verdict without an attempt gives the attempt back unspent. ``False`` says
        that the claim was no longer held, and that nothing was stored.
        """

    def abandoned(self, now: float, *, every: bool = False) -> Deferred[Sequence[Claim]]:
        """Return the claims that nobody holds any more, each to one caller only.

        Where several daemons share the database, this also tells the others that this
        one lives: it must be called every :data:`HEARTBEAT_SECONDS`.

        :param every: the daemon has just started: where it is alone, every claim is a
            dead one's.
        """

    def waiting(self, now: float) -> Deferred[Sequence[str]]:
        """Return the hosts with tasks due, of many tasks only the longest due.

        Cheap enough to be asked between two ticks where others put and give back tasks.
        """

    def purge(self, finished_before: float, limit: int) -> Deferred[int]:
        """Forget up to ``limit`` tasks that finished before then; return how many went."""

    def backlog(self, now: float) -> Deferred[int]:
        """Return how many tasks are due and wait to be claimed."""

    def figures(self, now: float, *, count: bool = False) -> Deferred[StoreStats]:
        """Say how much there is.

        :param count: count all tasks too. Of a million that takes 40 ms and more, on a
            connection that reads; all else takes a few milliseconds at most.
        """

    def history(self, since: int) -> Deferred[Sequence[MinuteOutcomes]]:
        """Return what ended from a second on, by minute, without those in which nothing did.

        A million tasks take some seconds, on a connection that reads.
        """

    def glance(self, limit: int) -> Deferred[ActivitySnapshot]:
        """Return what is going on and what failed last, up to ``limit`` tasks of either."""

    def agenda(
        self, task_name: str | None, until: int, failed_since: int, limit: int
    ) -> Deferred[CalendarData | None]:
        """Return what a calendar shows; ``None`` where a name is asked for that has no task.

        :param until: only scheduled tasks due before this second.
        :param failed_since: only tasks that failed at this second or later.
        :param limit: how many tasks to return, of those scheduled and of those failed.
        """

    def beside(
        self, definitions: Sequence[Definition], now: float
    ) -> Deferred[Sequence[PutPreview]]:
        """Say of each task what stands in its place, and what is due in the same minute.

        A task whose minute has begun is due together with all that wait by then.
        """

    def due_load(
        self,
        begin: int,
        until: int,
        *,
        find_saturated: Callable[[Mapping[int, int]], MinuteSpan | None],
        busy_above: int,
    ) -> Deferred[DueLoad]:
        """Return the calls due in a period; see :func:`callme.store.ahead.due_load`."""

    def writable(self) -> Deferred[bool]:
        """Return whether the last write found a database that takes any; asks nobody."""

    def close(self) -> Deferred[None]:
        """Finish the writes under way and let go of the database."""
