"""The store's vocabulary: the results of queries and operations, their errors and limits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from struct import unpack
from typing import Any, Protocol

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.task import Definition, Reason, State, Task
from ..core.times import Key
from ..core.transitions import PutOutcome
from ..errors import quoted


@frozen(kw_only=True)
class Event:
    """A task in a calendar.

    :ivar planned_at_ms: when it was put or last rescheduled, milliseconds since 1970.
    :ivar changed_at_ms: when it was last changed, milliseconds since 1970.
    :ivar host: the ``host:port`` that it calls.
    """

    task: Task
    planned_at_ms: int
    changed_at_ms: int
    host: str


@frozen(kw_only=True)
class CalendarData:
    """The tasks in a calendar.

    :ivar scheduled: the earliest first.
    :ivar failed: the latest first.
    :ivar more_scheduled: whether scheduled tasks were left out.
    :ivar more_failed: whether failed tasks were left out.
    """

    scheduled: Sequence[Event] = ()
    failed: Sequence[Event] = ()
    more_scheduled: bool = False
    more_failed: bool = False


@frozen(kw_only=True)
class MinuteLoad:
    """The calls due in one minute, to one host or to all hosts.

    :ivar minute: its first second since 1970.
    :ivar host: the ``host:port`` that is called; ``None`` for all hosts.
    :ivar expires_at: the earliest deadline of these calls, seconds since 1970: at that time the
        call can no longer start.
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


_LANE_BITS = 32
"""Bits of each number in a histogram."""


@frozen
class Histogram:
    """The number of occurrences of values from 0 on, which are rounded down to two digits.

    One integer contains all numbers, 32 bits for each value in order. It takes a tenth of the
    memory of a dict, and the histograms of all minutes of a day are added within a millisecond.
    """

    _packed: int = 0

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Histogram:
        """Return the histogram of values, given the number of occurrences of each."""
        return cls(sum(count << _LANE_BITS * _lane(value) for value, count in counts.items()))

    @classmethod
    def merge(cls, histograms: Iterable[Histogram]) -> Histogram:
        """Return the histogram of all values in some histograms."""
        return cls(sum(one._packed for one in histograms))

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._numbers())

    def _numbers(self) -> tuple[int, ...]:
        lanes = -(-self._packed.bit_length() // _LANE_BITS)
        return unpack(f"<{lanes}I", self._packed.to_bytes(4 * lanes, "little"))

    def percentiles(self, *percents: int) -> list[int | None]:
        """Return percentiles by the nearest rank; each is ``None`` without any value."""
        if not self._packed:
            return [None for _ in percents]
        sums = list(accumulate(self._numbers()))
        return [_lane_value(bisect_left(sums, -(-sums[-1] * one // 100))) for one in percents]


def _lane(value: int) -> int:
    """Return the place of a value in histograms."""
    if value < 100:
        return max(0, value)
    zeros = len(str(value)) - 2
    return int(90 * zeros + value // 10**zeros)


def _lane_value(lane: int) -> int:
    """Return the least value that has a place in histograms."""
    if lane < 100:
        return lane
    zeros = lane // 90 - (lane % 90 < 10)
    return int((lane - 90 * zeros) * 10**zeros)


@frozen(kw_only=True)
class MinuteOutcomes:
    """The tasks that ended in one minute.

    :ivar minute: its first second since 1970.
    :ivar lateness_ms: the lateness of first attempts in milliseconds. Later attempts are left out,
        because ``retry_delay`` sets their times, and a task that failed as ``too_late`` has no
        attempt.
    """

    minute: int
    succeeded: int
    failed: int
    lateness_ms: Histogram = Histogram()


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

    def fleet_place(self, node: str) -> tuple[int, int]:
        """Return the number of live daemons, and how many of them come before one.

        :param node: the name of that daemon.
        """

    def definition_values(self, definition: Definition) -> tuple[Any, ...]:
        """Return the values of a definition's columns, then of ``host`` and ``expires_at``."""


HEARTBEAT_SECONDS = 5
"""Interval between the heartbeats of a daemon that shares its database, in seconds."""

MAX_LOADS = 2000
"""Maximum number of loads of single hosts that one query returns."""

MAX_BACKLOG_COUNT = 10_000
"""Maximum number of due tasks that :func:`callme.store.stats.store_stats` counts: more may take
0.1 s."""

PAGE_CHARACTERS = 1024 * 1024
"""Number of characters from which on a page takes no further task."""


class StoreUnavailable(Exception):
    """The database cannot be used at the moment; the text gives the reason. A retry may succeed."""


def log_store_failure(
    log: Logger, event: str, failure: Failure, *, is_retried: bool = False
) -> None:
    """Log that an access to the store failed: as one line if the store is unavailable.

    :param event: the start of the line, such as ``"purging failed"``.
    :param is_retried: whether the line ends with ``"; retrying soon"``.
    """
    then = "; retrying soon" if is_retried else ""
    if failure.check(StoreUnavailable):
        error = quoted(str(failure.value), 300)
        log.error(f"{{event}}: {{error}}{then}", event=event, error=error)
    else:
        log.failure(f"{{event}}{then}", failure, event=event)


class StartGone(Exception):
    """A page cannot begin at a damaged task, because that is gone; the text names the task."""


class CannotOpen(Exception):
    """The database cannot be opened; the text is one line that gives the reason."""


@frozen
class PutResult:
    """The result of a put.

    :ivar task: the task that is under the key now; ``None`` if there is none, or if a batch
        created it.
    """

    outcome: PutOutcome
    task: Task | None


@frozen(kw_only=True)
class TaskVersion:
    """The version of a task: it differs after every change.

    :ivar created_at_ms: changes when the task is replaced.
    :ivar attempts_used: changes when an attempt leaves the task ``scheduled``.
    """

    state: State
    created_at_ms: int
    attempts_used: int

    def stored(self) -> tuple[str, int, int]:
        """Return the values of the columns of the same names."""
        return self.state.value, self.created_at_ms, self.attempts_used

    @classmethod
    def of(cls, task: Task) -> TaskVersion:
        """Return the version of a task."""
        return cls(
            state=task.state,
            created_at_ms=task.created_at_ms,
            attempts_used=task.attempts_used,
        )


@frozen
class Page:
    """A page of tasks in the order of their keys.

    :ivar next: the first key of the next page; ``None`` on the last page.
    """

    tasks: Sequence[Task]
    next: Key | None


@frozen(kw_only=True)
class Rescheduled:
    """The result of a reschedule.

    :ivar moved: the old and the new key of each task that was moved.
    :ivar skipped: the key of each selected task that was not moved, and the reason.
    :ivar conflict: the reason why nothing was done; ``None`` otherwise.
    :ivar next: the first key that was left for another request; ``None`` if all were examined.
    """

    moved: Sequence[tuple[Key, Key]] = ()
    skipped: Sequence[tuple[Key, str]] = ()
    conflict: str | None = None
    next: Key | None = None


@frozen(kw_only=True)
class Deleted:
    """The result of a delete.

    :ivar count: the number of deleted tasks.
    :ivar keys: their keys, if they were not all the tasks of a name.
    :ivar running: the keys of tasks that were not deleted because they are running.
    :ivar next: as for :class:`Rescheduled`.
    """

    count: int
    keys: Sequence[Key] = ()
    running: Sequence[Key] = ()
    next: Key | None = None


@frozen
class DueScan:
    """The result of a scan for due tasks.

    :ivar hosts: the ``host:port`` of every task whose minute has come.
    :ivar more: whether overdue tasks remain, because one transaction fails only so many.
    """

    hosts: Sequence[str]
    more: bool


@frozen(kw_only=True)
class StoreStats:
    """The size of the store and of its backlog.

    :ivar backlog: the number of due tasks that are not claimed, at most
        :data:`MAX_BACKLOG_COUNT`.
    :ivar oldest_due: the seconds since the oldest of them became due; 0 without a backlog.
    :ivar size: the bytes that tasks and attempts take in the database.
    :ivar tasks: the number of tasks of each state and, for failed tasks, each reason, zeros
        included. ``None`` if they were not counted.
    """

    backlog: int
    oldest_due: float
    size: int
    tasks: Mapping[tuple[State, Reason | None], int] | None = None


@frozen(kw_only=True)
class InFlightCall:
    """A call in flight.

    :ivar host: the ``host:port`` that is called.
    :ivar number: the number of the attempt.
    :ivar since_ms: the time of the claim, milliseconds since 1970.
    :ivar node: the name of the daemon that makes the call.
    """

    key: Key
    host: str
    number: int
    since_ms: int
    node: str | None


@frozen(kw_only=True)
class ActivitySnapshot:
    """The calls in flight and the latest failures.

    :ivar running: the number of ``running`` tasks.
    :ivar in_flight: some of their calls, the longest running first.
    :ivar failures: failed tasks, the latest first.
    """

    running: int
    in_flight: Sequence[InFlightCall]
    failures: Sequence[Task]


@frozen(kw_only=True)
class StartupCounts:
    """The numbers of tasks when a daemon starts.

    :ivar scheduled: the number of ``scheduled`` tasks.
    :ivar due: the number of these that are due: without another daemon, they were missed.
    :ivar running: the number of ``running`` tasks: without another daemon, they were interrupted.
    """

    scheduled: int
    due: int
    running: int


@frozen(kw_only=True)
class PutPreview:
    """The existing task and the calls that a put would meet.

    :ivar existing: the task under the key.
    :ivar calls: the number of other tasks due at the same time.
    :ivar calls_to_host: the number of these that call the same host.
    """

    existing: Task | None
    calls: int
    calls_to_host: int
