"""The store's vocabulary: the results of queries and operations, their errors and limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.task import Definition, Reason, State, Task
from ..core.times import Key
from ..core.transitions import PutOutcome
from ..errors import quoted


@frozen(kw_only=True)
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


@frozen(kw_only=True)
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


@frozen(kw_only=True)
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


@frozen(kw_only=True)
class MinuteOutcomes:
    """The tasks that ended in one minute.

    :ivar lateness_ms: how many of their first attempts were how late, by milliseconds that are
        rounded down to two digits. Later attempts are late by what ``retry_delay`` asks, and
        what failed as ``too_late`` had none.
    """

    minute: int
    succeeded: int
    failed: int
    lateness_ms: Mapping[int, int] = field(factory=dict)


class Cursor(Protocol):
    """Part of a cursor of Python's DB-API (PEP 249), and the differences between databases.

    The statements are written for SQLite: ``?`` for a value, and ``/* FOR UPDATE */`` where a
    database with several writers must lock the rows that it reads.

    :cvar SIZE: a query for the bytes that the tasks and their attempts take.
    """

    SIZE: str

    @property
    def rowcount(self) -> int:
        """Number of rows that the last statement changed."""

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        """Run a statement."""

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement for each of many rows of values."""

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""

    def __iter__(self) -> Iterator[Any]: ...

    def current_time(self, now: float) -> float:
        """Return the time that decides, seconds since 1970: the database's, or else ``now``."""

    def definition_values(self, definition: Definition) -> tuple[Any, ...]:
        """Return the values of a definition's columns, then of ``host`` and ``expires_at``."""


HEARTBEAT_SECONDS = 5
"""How often a daemon says that it lives, where others share its database."""

MAX_LOADS = 2000
"""Loads of single hosts that one look returns."""


MAX_BACKLOG_COUNT = 10_000
"""Due tasks that :func:`callme.store.stats.store_stats` counts at most: more may take 0.1 s."""

PAGE_CHARACTERS = 1024 * 1024
"""Characters of the tasks of a page, after which no further one is put on it."""


class StoreUnavailable(Exception):
    """The database cannot be used just now; its text says why. Worth trying again."""


def log_store_failure(
    log: Logger, event: str, failure: Failure, *, is_retried: bool = False
) -> None:
    """Log that an access to the store failed: as one line if the store is unavailable.

    :param event: the start of the line, such as ``"purging failed"``.
    :param is_retried: whether the line ends with ``"; retrying soon"``.
    """
    then = "; retrying soon" if is_retried else ""
    if failure.check(StoreUnavailable):
        log.error(f"{event}: {{error}}{then}", error=quoted(str(failure.value), 300))
    else:
        log.failure(f"{event}{then}", failure)


class CannotOpen(Exception):
    """The database cannot be used at all; its text is one line that says why."""


@frozen
class PutResult:
    """The result of a put.

    :ivar task: the task that is under the key now; ``None`` if there is none, or if the task was
        created by a batch.
    """

    outcome: PutOutcome
    task: Task | None


@frozen(kw_only=True)
class TaskVersion:
    """What tells a task from what it becomes next.

    :ivar created_at_ms: another once it was replaced.
    :ivar attempts_used: one more after an attempt that left it ``scheduled``.
    """

    state: State
    created_at_ms: int
    attempts_used: int

    @classmethod
    def of(cls, task: Task) -> TaskVersion:
        """Return what tells this task from what it becomes next."""
        return cls(
            state=task.state,
            created_at_ms=task.created_at_ms,
            attempts_used=task.attempts_used,
        )


@frozen
class Page:
    """Some tasks in the order of their keys, and where the rest begin, if there is a rest."""

    tasks: Sequence[Task]
    next: Key | None


@frozen(kw_only=True)
class Rescheduled:
    """What a reschedule did.

    :ivar moved: the old and the new key of each task moved.
    :ivar skipped: the key of each task left alone, and why.
    :ivar conflict: for one task: why nothing was done; ``None`` otherwise.
    """

    moved: Sequence[tuple[Key, Key]] = ()
    skipped: Sequence[tuple[Key, str]] = ()
    conflict: str | None = None


@frozen
class Deleted:
    """What a delete did: how many tasks are gone, and which are left as they are running."""

    count: int
    running: Sequence[Key] = ()


@frozen
class DueScan:
    """The result of a scan for due tasks.

    :ivar hosts: the ``host:port`` of every task whose minute has come.
    :ivar more: whether more tasks are too late than one transaction fails.
    """

    hosts: Sequence[str]
    more: bool


@frozen(kw_only=True)
class StoreStats:
    """How much there is in the store.

    :ivar backlog: tasks that are due and wait to be claimed, at most
        :data:`MAX_BACKLOG_COUNT`.
    :ivar oldest_due: how many seconds the longest due of them has been due; 0 without any.
    :ivar size: bytes that the tasks and their attempts take in the database.
    :ivar tasks: how many tasks there are of each state and, of failed ones, each reason; of what
        there is none, 0. ``None`` unless they were asked to be counted.
    """

    backlog: int
    oldest_due: float
    size: int
    tasks: Mapping[tuple[State, Reason | None], int] | None = None


@frozen(kw_only=True)
class InFlightCall:
    """A call that is being made.

    :ivar host: the ``host:port`` that it goes to.
    :ivar number: the number of the attempt.
    :ivar since_ms: when the task was taken to be called, milliseconds since 1970.
    :ivar node: the name of the daemon that makes it.
    """

    key: Key
    host: str
    number: int
    since_ms: int
    node: str | None


@frozen(kw_only=True)
class ActivitySnapshot:
    """What is going on, and what failed last.

    :ivar running: how many tasks are ``running``.
    :ivar in_flight: some of them, those first that have been for longest.
    :ivar failures: tasks that failed, the last one first.
    """

    running: int
    in_flight: Sequence[InFlightCall]
    failures: Sequence[Task]


@frozen(kw_only=True)
class StartupCounts:
    """How the tasks stand as a daemon starts.

    :ivar scheduled: how many are ``scheduled``.
    :ivar due: ... and due: where no other daemon runs, they were missed.
    :ivar running: how many are ``running``: where no other daemon runs, they were interrupted.
    """

    scheduled: int
    due: int
    running: int


@frozen(kw_only=True)
class PutPreview:
    """What is to be known of a task before it is put.

    :ivar existing: the task under its key.
    :ivar calls: how many other tasks are due when it is.
    :ivar calls_to_host: ... of them to its host.
    """

    existing: Task | None
    calls: int
    calls_to_host: int
