"""The interface of the store: results of queries and operations, errors and limits."""

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
    """Task in a calendar.

    :ivar planned_at_ms: when the task was put or last rescheduled: milliseconds since 1970.
    :ivar changed_at_ms: when the task was last changed: milliseconds since 1970.
    :ivar host: the ``host:port`` of the callback.
    """

    task: Task
    planned_at_ms: int
    changed_at_ms: int
    host: str


@frozen(kw_only=True)
class CalendarData:
    """Tasks in a calendar.

    :ivar scheduled: scheduled tasks, the earliest first.
    :ivar failed: failed tasks, the latest first.
    :ivar more_scheduled: whether there are further scheduled tasks.
    :ivar more_failed: whether there are further failed tasks.
    """

    scheduled: Sequence[Event] = ()
    failed: Sequence[Event] = ()
    more_scheduled: bool = False
    more_failed: bool = False


@frozen(kw_only=True)
class MinuteLoad:
    """Calls due in one minute, to one host or to all hosts.

    :ivar minute: the start of the minute: seconds since 1970.
    :ivar host: the ``host:port`` of the calls; ``None`` for all hosts.
    :ivar expires_at: the earliest end of ``max_delay`` of these calls: seconds since 1970.
    """

    minute: int
    host: str | None
    calls: int
    expires_at: int


MinuteSpan = tuple[int, int]
"""The starts of the first and the last minute of a span: seconds since 1970."""


@frozen(kw_only=True)
class DueLoad:
    """Calls due in a period, read in one snapshot.

    :ivar by_minute: the number of calls by minute, in order, without empty minutes.
    :ivar fleet: the calls to all hosts, for the minutes in which calls may wait for a slot.
    :ivar hosts: the calls to each host with many calls in a minute: at most :data:`MAX_LOADS`
        loads, the earliest first.
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
    """Tasks that ended in one minute.

    :ivar minute: the start of the minute: seconds since 1970.
    :ivar lateness_ms: the lateness of first attempts in milliseconds. Later attempts are not
        included, because ``retry_delay`` determines their times; a task that failed as
        ``too_late`` has no attempt.
    """

    minute: int
    succeeded: int
    failed: int
    lateness_ms: Histogram = Histogram()


class Cursor(Protocol):
    """Cursor of Python's DB-API (PEP 249), reduced to what callme uses, with database specifics.

    Statements are written for SQLite: ``?`` is a placeholder, and ``/* FOR UPDATE */`` marks where
    a database with several writers must lock the rows that it reads.

    :cvar SIZE: a query for the size of the tasks and their attempts in bytes.
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
        """Return the authoritative time: the database's, or else ``now``; seconds since 1970."""

    def fleet_place(self, node: str) -> tuple[int, int]:
        """Return the number of live daemons, and the rank of one daemon among them, from 0.

        :param node: the name of the daemon.
        """

    def definition_values(self, definition: Definition) -> tuple[Any, ...]:
        """Return the values of a definition's columns, followed by ``host`` and ``expires_at``."""


HEARTBEAT_SECONDS = 5
"""Interval between the heartbeats of a daemon that shares its database, in seconds."""

MAX_LOADS = 2000
"""Maximum number of loads of single hosts that one query returns."""

MAX_BACKLOG_COUNT = 10_000
"""Maximum number of due tasks that :func:`callme.store.stats.store_stats` counts: more may take
0.1 s."""

PAGE_CHARACTERS = 1024 * 1024
"""Number of characters above which a page ends before its limit."""


class StoreUnavailable(Exception):
    """The database cannot be used at the moment; the text gives the reason. A retry may succeed."""


def log_store_failure(
    log: Logger, event: str, failure: Failure, *, is_retried: bool = False
) -> None:
    """Log a failed access to the store: one line if the store is unavailable, else a traceback.

    :param event: the start of the line, such as ``"pruning failed"``.
    :param is_retried: whether the line ends with ``"; retrying soon"``.
    """
    then = "; retrying soon" if is_retried else ""
    if failure.check(StoreUnavailable):
        error = quoted(str(failure.value), 300)
        log.error(f"{{event}}: {{error}}{then}", event=event, error=error)
    else:
        log.failure(f"{{event}}{then}", failure, event=event)


class StartGone(Exception):
    """The damaged task at which a page should begin no longer exists; the text names the task."""


class CannotOpen(Exception):
    """The database cannot be opened; the text is one line that gives the reason."""


@frozen
class PutResult:
    """Result of a put.

    :ivar task: the current task under the key; ``None`` if there is none, or if a batch created it.
    """

    outcome: PutOutcome
    task: Task | None


@frozen(kw_only=True)
class TaskVersion:
    """Version of a task, which differs after every change.

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
    """Page of tasks in the order of their keys.

    :ivar next: the first key of the next page; ``None`` on the last page.
    """

    tasks: Sequence[Task]
    next: Key | None


@frozen(kw_only=True)
class Rescheduled:
    """Result of a reschedule.

    :ivar moved: the old and the new key of each moved task.
    :ivar skipped: the key of each selected task that was not moved, and the reason.
    :ivar conflict: the reason for refusing the whole reschedule, if it was refused.
    :ivar next: the first key that is left for the next request; ``None`` if all were examined.
    """

    moved: Sequence[tuple[Key, Key]] = ()
    skipped: Sequence[tuple[Key, str]] = ()
    conflict: str | None = None
    next: Key | None = None


@frozen(kw_only=True)
class Deleted:
    """Result of a delete.

    :ivar count: the number of deleted tasks.
    :ivar keys: their keys; empty for a delete of all tasks of a name.
    :ivar running: the keys of tasks that were not deleted because they are running.
    :ivar next: as for :class:`Rescheduled`.
    """

    count: int
    keys: Sequence[Key] = ()
    running: Sequence[Key] = ()
    next: Key | None = None


@frozen
class DueScan:
    """Result of a scan for due tasks.

    :ivar hosts: the ``host:port`` of each host with due tasks.
    :ivar more: whether overdue tasks remain, because one transaction fails a limited number.
    """

    hosts: Sequence[str]
    more: bool


@frozen(kw_only=True)
class StoreStats:
    """Size of the store and of its backlog.

    :ivar backlog: the number of due tasks that are not claimed, at most
        :data:`MAX_BACKLOG_COUNT`.
    :ivar oldest_due: the seconds since the oldest task of the backlog became due; 0 without one.
    :ivar size: the size of tasks and attempts in the database, in bytes.
    :ivar tasks: the number of tasks by state and, for failed tasks, by reason, including zeros;
        ``None`` if the tasks were not counted.
    """

    backlog: int
    oldest_due: float
    size: int
    tasks: Mapping[tuple[State, Reason | None], int] | None = None


@frozen(kw_only=True)
class InFlightCall:
    """Call in flight.

    :ivar host: the ``host:port`` of the callback.
    :ivar number: the number of the attempt.
    :ivar since_ms: the time of the claim: milliseconds since 1970.
    :ivar node: the name of the daemon that makes the call.
    """

    key: Key
    host: str
    number: int
    since_ms: int
    node: str | None


@frozen(kw_only=True)
class ActivitySnapshot:
    """Calls in flight and the latest failures.

    :ivar running: the number of ``running`` tasks.
    :ivar in_flight: some of their calls, the longest running first.
    :ivar failures: failed tasks, the latest first.
    """

    running: int
    in_flight: Sequence[InFlightCall]
    failures: Sequence[Task]


@frozen(kw_only=True)
class StartupCounts:
    """Numbers of tasks when a daemon starts.

    :ivar scheduled: the number of ``scheduled`` tasks.
    :ivar due: the number of due tasks among them, which were missed unless another daemon runs.
    :ivar running: the number of ``running`` tasks, which were interrupted unless another daemon
        runs.
    """

    scheduled: int
    due: int
    running: int


@frozen(kw_only=True)
class PutPreview:
    """State of the store that is relevant for a put.

    :ivar existing: the task under the key, if any.
    :ivar calls: the number of other tasks due at the same time.
    :ivar calls_to_host: the number of these tasks that call the same host.
    """

    existing: Task | None
    calls: int
    calls_to_host: int
